"""ONNX graphs written by hand do in onnxruntime what their nodes say."""

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salq.kernels.onnx_graph import Node, Value, _varint, graph_bytes
from salq.kernels.onnx_linear import session


@given(st.integers(0, 2**63 - 1))
def test_whole_numbers_are_written_in_groups_of_seven_bits(value: int) -> None:
    written = _varint(value)
    assert sum((byte & 0x7F) << (7 * at) for at, byte in enumerate(written)) == value
    assert [byte >> 7 for byte in written] == [1] * (len(written) - 1) + [0]


@pytest.mark.parametrize("rows", [1, 3])
def test_a_graph_with_constants_and_attributes(rows: int) -> None:
    constants = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "sizes": np.array([1, 2], np.int64)}
    nodes = [
        Node("MatMul", ["x", "w"], ["y"]),
        Node("Split", ["y", "sizes"], ["a", "b"], {"axis": -1}),
        Node("Elu", ["a"], ["e"], {"alpha": 0.5}),
        Node("Concat", ["b", "e"], ["out"], {"axis": 1}),
    ]
    x = np.array([[-1, 0.5], [2, 3], [0, 0]], np.float32)[:rows]
    (got,) = session(graph_bytes(nodes, constants, [Value("x", ("rows", 2))], [Value("out", ("rows", 3))]), constants).run(["out"], {"x": x}, None)
    y = x @ constants["w"]
    want = np.concatenate([y[:, 1:], np.where(y[:, :1] > 0, y[:, :1], 0.5 * np.expm1(y[:, :1]))], axis=1)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_nonsense_is_refused_by_onnxruntime() -> None:
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidGraph):
        session(graph_bytes([Node("NoSuchOperator", ["x"], ["y"])], {}, [Value("x", (1, 2))], [Value("y", (1, 2))]), {})
