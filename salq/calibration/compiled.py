"""A block's passes by torch.compile, where a recipe asks for it: the first block pays for the compilation, every step gains.

The blocks of a model are one graph, so nothing is compiled again after the first; a last batch of fewer samples is one more graph. Sums are
taken in another order, so codes may differ from those of a recipe that does not compile.
"""

import os
import shutil
import sys
from importlib.util import find_spec

import torch
from torch import nn

from salq.core.errors import ConfigError

LEAVE_OUT = "or leave compile out of the recipe"


def compile_block(block: nn.Module) -> None:
    """Let the block's forward and backward passes be compiled when they first run."""
    block.compile(dynamic=False)


def check_compiler(device: torch.device) -> None:
    """Raise ConfigError where torch.compile lacks what it writes programs for `device` with: a C++ compiler for a CPU, Triton for a GPU."""
    if device.type == "cpu":
        name = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")  # as torch looks for it
        if shutil.which(name) is None:
            raise ConfigError(f"compile asks for the C++ compiler {name}, which is not installed; install it, name another one in CXX, {LEAVE_OUT}.")
        return
    if find_spec("triton") is None:
        raise ConfigError(f"compile asks for Triton on {device}, which is not installed; install it, {LEAVE_OUT}.")


def compilation_failure(error: Exception) -> ConfigError | None:
    """What to say of a failed compilation, whose compiler may lack headers or be too old; None for any other error."""
    tracing = sys.modules.get("torch._dynamo.exc")  # only what compiles has imported it
    if tracing is None or not isinstance(error, tracing.TorchDynamoException):
        return None
    said = " ".join(str(error).split()[:25])
    return ConfigError(f"torch.compile failed ({said}); mend its compiler, {LEAVE_OUT}.")
