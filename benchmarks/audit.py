"""Known vulnerabilities of the pinned packages, by pip-audit: `make audit`. Where pip-audit or its database cannot be had, a notice and exit code 0.

python benchmarks/audit.py
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 300


def pins() -> str:
    """The lines of constraints.txt that pin something on this system."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if "==" in line and not line.lstrip().startswith("#"))


def notice(why: str) -> int:
    """Say that nothing was checked; that is no failure."""
    print(f"salq: the pins were not checked for known vulnerabilities: {why}.", file=sys.stderr)
    return 0


def main() -> int:
    """Exit code 1 when a pinned version has a known vulnerability."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pins.txt"
        file.write_text(pins(), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "pip_audit",
            "--requirement",
            str(file),
            "--no-deps",
            "--disable-pip",
            "--format",
            "json",
            "--progress-spinner=off",
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return notice("the database did not answer in time")
    if "No module named pip_audit" in done.stderr:
        return notice("pip-audit is not installed (pip install pip-audit)")
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = next((line.strip() for line in reversed(done.stderr.splitlines()) if line.strip()), "pip-audit gave no reason")
        return notice(last[:200])
    bad = [(one["name"], one["version"], flaw["id"], flaw.get("fix_versions")) for one in packages for flaw in one.get("vulns", [])]
    for name, version, flaw, fixed in bad:
        print(f"{name} {version}: {flaw}, fixed in {', '.join(fixed or []) or 'no version yet'}")
    print(f"{len(packages)} pinned packages checked, {len(bad)} known vulnerabilities.")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
