"""Writing is all or nothing, and a disk that refuses is told in one sentence."""

import errno
import json
from pathlib import Path

import pytest

from salq.core.errors import ResourceError
from salq.core.files import as_resource_error, atomic_path, last_part, read_json, write_json


def test_json_round_trip(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "value.json"
    write_json(target, {"a": [1, None, "ä"]})
    assert read_json(target) == {"a": [1, None, "ä"]}
    assert [path.name for path in target.parent.iterdir()] == ["value.json"]


def test_nan_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    target = tmp_path / "value.json"
    write_json(target, {"a": 1})
    with pytest.raises(ValueError, match=r"JSON compliant"):
        write_json(target, {"a": float("nan")})
    assert read_json(target) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["value.json"]


def test_a_failing_writer_leaves_nothing(tmp_path: Path) -> None:
    def fail_midway() -> None:
        with atomic_path(tmp_path / "block") as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_midway()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_while_writing_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="No space is left") as caught, atomic_path(tmp_path / "block"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(caught.value).count(".") >= 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError, match="cannot be written"):
        write_json(tmp_path / "file" / "value.json", 1)


def test_other_errors_name_the_way_out() -> None:
    assert "SALQ_HOME" in str(as_resource_error(OSError(errno.EACCES, "Permission denied"), Path("x")))


def test_torn_json_is_a_value_error(tmp_path: Path) -> None:
    path = tmp_path / "torn.json"
    path.write_text(json.dumps({"a": 1})[:-1])
    with pytest.raises(ValueError, match=r"delimiter"):
        read_json(path)


@pytest.mark.parametrize(
    ("text", "last"),
    [("owner/model", "model"), ("models/tiny/", "tiny"), ("models\\tiny", "tiny"), ("bundled", "bundled"), ("/", "/"), ("", "")],
)
def test_the_last_part_of_a_name(text: str, last: str) -> None:
    assert last_part(text) == last
