"""A folder built once is complete or absent, whoever builds it."""

import multiprocessing
from pathlib import Path

import pytest

from salq.core.errors import ModelError, ResourceError
from salq.models.build import build_once


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise ModelError("broken")

    with pytest.raises(ModelError, match="broken"):
        build_once(tmp_path / "model", fail)
    assert [path.name for path in tmp_path.iterdir()] == [".model.lock"]


def test_leftovers_of_a_killed_process_are_cleared(tmp_path: Path) -> None:
    (tmp_path / ".model.part-dead").mkdir()
    build_once(tmp_path / "model", lambda folder: (folder / "x").touch())
    assert sorted(path.name for path in tmp_path.iterdir()) == [".model.lock", "model"]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ResourceError, match="cannot be written"):
        build_once(tmp_path / "file" / "model", lambda folder: None)


def _build(arguments: tuple[Path, int]) -> str:
    target, worker = arguments

    def work(folder: Path) -> None:
        with (target.parent / "built").open("a") as file:
            file.write(f"{worker}\n")
        (folder / "who").write_text(str(worker))

    return (build_once(target, work) / "who").read_text()


def test_two_processes_build_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        answers = pool.map(_build, [(tmp_path / "model", worker) for worker in range(4)])
    assert len(set(answers)) == 1
    assert len((tmp_path / "built").read_text().splitlines()) == 1
