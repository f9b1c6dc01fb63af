"""All denoising steps of one chunk as one CUDA graph.

At batch 1 a GPU waits for the host to launch kernels: ten steps of 24 blocks are thousands of launches. A graph is
captured once and replayed with a single one. The kernels are those of the ordinary way.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xvla_platform.modelling.xvla import XVLA

WARM_UP = 3  # runs before the capture, in which libraries choose their kernels and reserve memory


class ChunkGraph:
    """`XVLA.generate` for inputs of fixed shapes on a CUDA device."""

    def __init__(
        self,
        model: XVLA,
        features: tuple[Tensor, Tensor],
        proprio: Tensor,
        noise: Tensor,
        *,
        domain_id: int,
        times: Sequence[float],
    ) -> None:
        """Capture; the tensors give the shapes. features: (vlm, aux) [1, ...]; proprio [1, P]; noise [1, T, A]."""
        device = next(model.parameters()).device
        self._inputs = [part.to(device).float().clone() for part in (*features, proprio, noise)]
        domain = torch.tensor([domain_id], device=device)

        def generate() -> Tensor:
            vlm, aux, state, start = self._inputs
            return model.generate(domain_id=domain, features=(vlm, aux), proprio=state, noise=start, times=times)

        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.no_grad(), torch.cuda.stream(side):
            for _ in range(WARM_UP):
                generate()
        torch.cuda.current_stream(device).wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.graph(self._graph):
            self._chunk = generate()

    @torch.no_grad()
    def __call__(self, features: tuple[Tensor, Tensor], proprio: Tensor, noise: Tensor) -> NDArray[np.float32]:
        """One chunk [1, T, real_dim] in model units, as `XVLA.generate` answers."""
        for place, value in zip(self._inputs, (*features, proprio, noise), strict=True):
            place.copy_(value)
        self._graph.replay()
        return self._chunk.cpu().numpy()
