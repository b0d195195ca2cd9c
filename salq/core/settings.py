"""Where salq keeps its files and what kind of host it runs on. The only module that reads the environment."""

import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout (or installation) that holds `assets/`."""

ASSETS = ROOT / "assets"
MAX_JOBS = 64


def home() -> Path:
    """The folder of models, saliency maps and runs: SALQ_HOME, else the user's cache folder."""
    if explicit := os.environ.get("SALQ_HOME"):
        return Path(explicit).expanduser().resolve()
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache).expanduser().resolve() / "salq"
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "salq"
    return Path.home() / ".cache" / "salq"


def models_dir() -> Path:
    """Converted models."""
    return home() / "models"


def saliency_dir() -> Path:
    """Saliency maps, keyed by model, text and sampling."""
    return home() / "saliency"


def texts_dir() -> Path:
    """Fetched and model-written texts."""
    return home() / "texts"


def runs_dir() -> Path:
    """The run store."""
    return home() / "runs"


def is_public_host() -> bool:
    """True on a HF Space and with SALQ_PUBLIC=1 (class servers): caps on models, samples and tokens apply, no path of a visitor is ever opened,
    and a run is stopped or resumed by the visitor who started it only.
    """
    return bool(os.environ.get("SPACE_ID")) or _is_on("SALQ_PUBLIC")


def hub_is_disabled() -> bool:
    """True when the user forbade network access to the hub (the hub client's own variables)."""
    return any(_is_on(name) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def has_hub_token() -> bool:
    """Whether a token for gated models is set, in the environment or by the hub client's own login; the token itself is never read here."""
    stored = Path(os.environ.get("HF_TOKEN_PATH") or Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface") / "token")
    return bool(os.environ.get("HF_TOKEN")) or stored.is_file()


def quota_gb() -> float | None:
    """SALQ_QUOTA_GB: how much disk all runs together may take, in GB; None (unset, or not a positive number): no bound."""
    return _positive(os.environ.get("SALQ_QUOTA_GB", ""))


def jobs_per_device() -> int:
    """SALQ_JOBS: heavy jobs at a time on one device, 1 unless it is set to a larger whole number, and at most MAX_JOBS."""
    value = os.environ.get("SALQ_JOBS", "")
    return max(1, min(int(value), MAX_JOBS)) if value.isdecimal() else 1


def password() -> str | None:
    """SALQ_PASSWORD: what a visitor must know to open the page, for class servers; None when everybody may."""
    return os.environ.get("SALQ_PASSWORD") or None


def _positive(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None


def hub_endpoint() -> str:
    """Address of the model hub: the hub client's own variable, so that a mirror is probed where it is used."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def c_compiler() -> str | None:
    """The C compiler that triton would start a kernel with: CC, else gcc or clang; None when it is not to be found."""
    named = os.environ.get("CC")
    return shutil.which(named) if named else shutil.which("gcc") or shutil.which("clang")


def _is_on(name: str) -> bool:
    return os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}
