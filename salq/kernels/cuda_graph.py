"""One decode step as a CUDA graph per cache bucket: the hundreds of kernels of a token are launched by one call.

Written for GPUs and only reached there; the arithmetic that it captures (`engine.Spot`) is tested on the CPU, the capture itself is not.
"""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from salq.kernels.engine import Spot

if TYPE_CHECKING:
    from salq.kernels.engine import DecodeEngine

WARM_UP = 3
"""Steps before the capture: kernels are compiled and tuned in them, which a capture does not allow."""


class CapturedSteps:
    """Replays the step of the engine's current bucket; captures it first when the cache has moved to another one."""

    def __init__(self, engine: "DecodeEngine") -> None:
        """Nothing is captured yet."""
        self._engine = engine
        self._token = torch.zeros(1, dtype=torch.long, device=engine.device)
        self._position = torch.zeros(1, dtype=torch.long, device=engine.device)
        self._bucket = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._logits = torch.empty(0)

    def step(self, token: int, position: int) -> Float[Tensor, "1 vocab"]:
        """Logits after `token` at `position`. The tensor is overwritten by the next step."""
        self._token.fill_(token)
        self._position.fill_(position)
        if self._graph is None or self._bucket != self._engine.cache.bucket:
            self._capture()
        assert self._graph is not None
        self._graph.replay()
        return self._logits

    def _capture(self) -> None:
        """The graph of the cache's tensors as they are now. Warm-up and capture write the keys and values that the replay writes again."""
        self._graph, self._bucket = None, self._engine.cache.bucket
        stream = torch.cuda.Stream(self._engine.device)
        stream.wait_stream(torch.cuda.current_stream(self._engine.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self._run()
        torch.cuda.current_stream(self._engine.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._logits = self._run()
        self._graph = graph

    def _run(self) -> Tensor:
        engine = self._engine
        spot = Spot(self._position, engine.cos, engine.sin)
        hidden = engine.embed(self._token)
        for block, stored in zip(engine.blocks, engine.cache.blocks, strict=True):
            hidden = block(hidden, stored, spot)
        return engine.logits(hidden)
