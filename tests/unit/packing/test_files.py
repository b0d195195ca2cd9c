"""Packed files: what they take on disk, what they refuse, and the older format."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from salq.calibration.store import DirectoryBlocks
from salq.core.errors import FormatError, NewerFormatError, ShapeError, StoreError
from salq.packing.files import FORMAT, Origin, PackedFile, write_packed
from salq.packing.matrix import pack_matrix, tensor_shapes
from salq.quant.frozen import FrozenLinear, rtn
from salq.quant.size import matrix_bits, size_report
from salq.quant.spec import BITS, QuantSpec
from tests.helpers import random_weight

SHAPES = {"q": (576, 576), "down": (576, 1536), "up": (1536, 576), "odd": (7, 36)}


def linears(spec: QuantSpec, rank: int = 0) -> dict[str, FrozenLinear]:
    found = {}
    for name, (out_features, in_features) in SHAPES.items():
        frozen = rtn(random_weight(out_features, in_features), spec)
        adapter = (torch.randn(rank, in_features).half(), torch.randn(out_features, rank).half()) if rank else (None, None)
        found[name] = FrozenLinear(spec, frozen.codes, frozen.scale, frozen.zero_point, *adapter, 0.25)
    return found


def stored_bytes(path: Path) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in load_file(path).values())


@pytest.mark.parametrize(("bits", "symmetric", "rank"), [(2, False, 0), (3, False, 5), (3, True, 0), (4, True, 4), (8, False, 0)])
def test_the_file_is_as_large_as_announced_and_loses_nothing(bits: int, symmetric: bool, rank: int, tmp_path: Path) -> None:
    spec = QuantSpec(bits=bits, group_size=12, symmetric=symmetric)
    matrices = linears(spec, rank)
    write_packed(tmp_path / "x.safetensors", matrices.items(), Origin(model="m", recipe={"name": "rtn"}))
    assert stored_bytes(tmp_path / "x.safetensors") == pytest.approx(size_report(spec, SHAPES, 10**7, rank).size_mb * 1e6, abs=1e-3)
    file = PackedFile(tmp_path / "x.safetensors")
    assert (file.manifest.format, file.manifest.origin.model) == (FORMAT, "m")
    for name, again in file.matrices().items():
        frozen = matrices[name]
        assert (again.spec, again.scaling, again.rank) == (frozen.spec, frozen.scaling, frozen.rank)
        assert file.manifest.matrices[name].shape == SHAPES[name]
        for part, tensor in frozen.tensors().items():
            assert torch.equal(getattr(again, part), tensor), part


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("shape", [(4096, 11008), (576, 1536), (49152, 576), (3, 35), (5, 9)])
def test_announced_sizes_are_those_of_the_tensors(bits: int, symmetric: bool, shape: tuple[int, int]) -> None:
    """From numbers alone, so that shapes of any size are cheap."""
    spec = QuantSpec(bits=bits, group_size=None if shape[1] % 64 else 64, symmetric=symmetric)
    held = sum(rows * columns * dtype.itemsize for (rows, columns), dtype in tensor_shapes(spec, shape, rank=3).values())
    assert held * 8 == sum(matrix_bits(spec, *shape, rank=3).values())


def test_equal_content_gives_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_packed(tmp_path / name, linears(QuantSpec(bits=3, group_size=12)).items())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def rewritten(path: Path, change) -> None:
    """The same file with its tensors and metadata changed by `change(tensors, manifest)`."""
    with safe_open(path, framework="pt") as file:
        manifest = json.loads(file.metadata()["salq"])
    tensors = load_file(path)
    change(tensors, manifest)
    save_file(tensors, path, metadata={"salq": json.dumps(manifest)})


def flip(tensors: dict, manifest: dict) -> None:
    tensors["q.qweight.0"][0, 0] ^= 1


def shorten(tensors: dict, manifest: dict) -> None:
    del tensors["q.scale"]


def regrid(tensors: dict, manifest: dict) -> None:
    manifest["matrices"]["q"]["spec"]["bits"] = 4


def reshape(tensors: dict, manifest: dict) -> None:
    manifest["matrices"]["q"]["shape"] = [4, 4]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (flip, "was altered: q.qweight.0"),
        (shorten, "was altered: q.scale"),
        (regrid, "does not fit its manifest: q"),
        (reshape, "does not fit its manifest: q"),
        (lambda tensors, manifest: manifest.pop("matrices"), "its manifest is not valid"),
        (lambda tensors, manifest: manifest.pop("format"), "it lacks 'format'"),
    ],
)
def test_what_was_altered_is_refused_in_one_sentence(change, words: str, tmp_path: Path) -> None:
    path = tmp_path / "000.safetensors"
    write_packed(path, linears(QuantSpec(bits=2, group_size=12)).items())
    rewritten(path, change)
    with pytest.raises(FormatError, match=words):
        PackedFile(path).matrices()
    with pytest.raises(StoreError, match=r"block 0 .* delete 000\.safetensors in its blocks folder and resume"):
        DirectoryBlocks(tmp_path).load(0)


def test_cut_files_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_packed(path, linears(QuantSpec(bits=2, group_size=12)).items())
    path.write_bytes(path.read_bytes()[:-10])
    for name in ("x.safetensors", "missing.safetensors"):
        with pytest.raises(FormatError, match=f"{name} is not a whole packed file"):
            PackedFile(tmp_path / name)
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(FormatError, match="it lacks 'salq'"):
        PackedFile(path)


def test_a_newer_format_is_refused_and_kept(tmp_path: Path) -> None:
    blocks = DirectoryBlocks(tmp_path)
    blocks.save(0, linears(QuantSpec(bits=2, group_size=12)))
    rewritten(blocks.path(0), lambda tensors, manifest: manifest.update(format=FORMAT + 1, novelty=True))
    with pytest.raises(NewerFormatError, match=f"has format {FORMAT + 1}, and this salq reads up to {FORMAT}; update salq"):
        blocks.load(0)


def test_format_1_is_still_read(tmp_path: Path) -> None:
    """Runs of earlier versions kept one byte per code."""
    matrices = linears(QuantSpec(bits=3, group_size=12), rank=2)
    tensors = {f"{name}.{part}": tensor for name, frozen in matrices.items() for part, tensor in frozen.tensors().items()}
    about = {name: {"spec": frozen.spec.model_dump(), "scaling": frozen.scaling} for name, frozen in matrices.items()}
    save_file(tensors, tmp_path / "000.safetensors", metadata={"salq": json.dumps({"format": 1, "linears": about})})
    for name, again in DirectoryBlocks(tmp_path).load(0).items():
        assert torch.equal(again.effective_weight(), matrices[name].effective_weight())
    del tensors["q.codes"]
    save_file(tensors, tmp_path / "000.safetensors", metadata={"salq": json.dumps({"format": 1, "linears": about})})
    with pytest.raises(StoreError, match="lacks q.codes"):
        DirectoryBlocks(tmp_path).load(0)


def test_a_symmetric_grid_with_other_zero_points_is_refused() -> None:
    frozen = rtn(random_weight(4, 32), QuantSpec(bits=4, group_size=32, symmetric=True))
    with pytest.raises(ShapeError, match="zero point 7 everywhere"):
        pack_matrix(FrozenLinear(frozen.spec, frozen.codes, frozen.scale, frozen.zero_point + 1))


@pytest.mark.parametrize(("bits", "symmetric", "rank"), [(2, False, 0), (3, False, 5), (3, True, 0), (4, False, 4), (8, False, 0)])
def test_one_row_is_that_row_of_the_matrix(bits: int, symmetric: bool, rank: int, tmp_path: Path) -> None:
    spec = QuantSpec(bits=bits, group_size=12, symmetric=symmetric)
    matrices = {name: one for name, one in linears(spec, rank).items() if name in {"odd", "q"}}
    write_packed(tmp_path / "x.safetensors", matrices.items())
    file = PackedFile(tmp_path / "x.safetensors")
    for name, frozen in matrices.items():
        for row in {0, 3, len(frozen.codes) - 1}:
            line = file.row(name, row)
            assert torch.equal(line.codes[0], frozen.codes[row])
            assert torch.equal(line.zero_point[0], frozen.zero_point[row])
            torch.testing.assert_close(line.effective_weight()[0], frozen.effective_weight()[row])
        for row in (-1, len(frozen.codes)):
            with pytest.raises(FormatError, match="has rows 0 to"):
                file.row(name, row)
    with pytest.raises(FormatError, match="no matrix"):
        file.row("nowhere", 0)
