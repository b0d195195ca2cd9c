"""A small ONNX graph as bytes, written without the onnx package: nodes, constants kept outside.

ONNX files are protocol buffers; the field numbers are those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
Constants are declared only: onnxruntime takes their memory from arrays that it is given beside the graph, which saves a copy of every weight.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

IR_VERSION = 8
OPSET = 17
CONTRIB = "com.microsoft"
"""Domain of the operators that onnxruntime adds, such as MatMulNBits."""

_TYPES = {"float32": 1, "uint8": 2, "int32": 6, "int64": 7}
_FLOAT, _INT, _STRING = 1, 2, 3
_VARINT, _BYTES, _FIXED32 = 0, 2, 5

Attribute = int | float | str


@dataclass(frozen=True)
class Node:
    """One operator; its attributes by name."""

    operator: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    domain: str = ""


@dataclass(frozen=True)
class Value:
    """An input or output of the graph; a size that is a word may be any number, the same one wherever the word stands."""

    name: str
    shape: Sequence[int | str]
    dtype: str = "float32"


def graph_bytes(nodes: Sequence[Node], constants: Mapping[str, np.ndarray], inputs: Sequence[Value], outputs: Sequence[Value]) -> bytes:
    """The serialized model.

    Each of `constants` that is float32 or uint8 has to be handed to the session under its name; int64 ones are part of the bytes.
    """
    graph = b"".join(_message(1, _node(node)) for node in nodes) + _message(2, b"salq")
    graph += b"".join(_message(5, _constant(name, array)) for name, array in constants.items())
    graph += b"".join(_message(11, _value(value)) for value in inputs) + b"".join(_message(12, _value(value)) for value in outputs)
    operators = [_message(1, domain.encode()) + _number(2, version) for domain, version in (("", OPSET), (CONTRIB, 1))]
    return _number(1, IR_VERSION) + b"".join(_message(8, operator) for operator in operators) + _message(7, graph)


def _node(node: Node) -> bytes:
    names = b"".join(_message(1, name.encode()) for name in node.inputs) + b"".join(_message(2, name.encode()) for name in node.outputs)
    attributes = b"".join(_message(5, _attribute(name, value)) for name, value in node.attributes.items())
    return names + _message(4, node.operator.encode()) + attributes + _message(7, node.domain.encode())


def _attribute(name: str, value: Attribute) -> bytes:
    kind = {float: _FLOAT, int: _INT, str: _STRING}[type(value)]
    if isinstance(value, float):
        content = _key(2, _FIXED32) + struct.pack("<f", value)
    else:
        content = _number(3, value) if isinstance(value, int) else _message(4, value.encode())
    return _message(1, name.encode()) + content + _number(20, kind)


def _constant(name: str, array: np.ndarray) -> bytes:
    """A tensor whose content is elsewhere: the location is a name that no file has, since the session gets the memory itself.

    Whole numbers (sizes that operators are told) are written into the graph: onnxruntime reads them before it has the memory.
    """
    shape = b"".join(_number(1, size) for size in array.shape)
    head = shape + _number(2, _TYPES[array.dtype.name]) + _message(8, name.encode())
    if array.dtype == np.int64:
        return head + _message(9, array.astype("<i8").tobytes())
    pairs = {"location": "memory", "offset": "0", "length": str(array.nbytes)}
    outside = b"".join(_message(13, _message(1, key.encode()) + _message(2, value.encode())) for key, value in pairs.items())
    return head + outside + _number(14, 1)


def _value(value: Value) -> bytes:
    sizes = [_message(2, size.encode()) if isinstance(size, str) else _number(1, size) for size in value.shape]
    shape = b"".join(_message(1, size) for size in sizes)
    return _message(1, value.name.encode()) + _message(2, _message(1, _number(1, _TYPES[value.dtype]) + _message(2, shape)))


def _key(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _number(number: int, value: int) -> bytes:
    return _key(number, _VARINT) + _varint(value)


def _message(number: int, content: bytes) -> bytes:
    return _key(number, _BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    value &= (1 << 64) - 1  # negative numbers are written as 64-bit two's complement
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
