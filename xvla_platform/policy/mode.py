"""A policy's model in one sampler: its weights as the sampler wants them, the views it remembers, its captured graph.

In: preprocessed views and tokens of one observation. Out: its features, and chunks from features. Modes of one policy
share every tensor that they do not hold otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xvla_platform.evaluation.open_loop import chunk_noise, predict_chunks
from xvla_platform.modelling.precision import encode_views, encode_words
from xvla_platform.modelling.sampling import Sampler, require
from xvla_platform.modelling.weights import held_as
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.policy.graph import ChunkGraph

Frame = NDArray[np.uint8]
Preprocess = Callable[[Frame], Tensor]


@dataclass
class _Memory:
    """What was encoded last: a frame and its features by view, and the words with the main view."""

    calls: int = 0
    views: dict[int, tuple[Frame, Tensor]] = field(default_factory=dict)
    words: tuple[Tensor, Tensor, tuple[Tensor, Tensor]] | None = None


class Mode:
    """One sampler of one policy."""

    def __init__(self, model: XVLA, sampler: Sampler, domain_id: int) -> None:
        """Prepare the weights; a sampler that the model's device cannot run is an error."""
        self.sampler = sampler
        self.domain_id = domain_id
        self.device = next(model.parameters()).device
        require(sampler, self.device)
        self.model = held_as(model, sampler.weights)
        self._memory = _Memory()
        self._graph: ChunkGraph | None = None

    def reset(self) -> None:
        """Forget what was seen."""
        self._memory = _Memory()

    @torch.inference_mode()
    def encode(self, frames: list[Frame], preprocess: Preprocess, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Features of one observation.

        Only views that exist are encoded; missing ones are zeros, as published.

        Args:
            frames: uint8 [H, W, 3] of each view the robot has, main view first.
            preprocess: A frame → normalised [3, h, w].
            tokens: [1, L].
        """
        if self.sampler.reuse:
            found = [self._view(i, frame, preprocess) for i, frame in enumerate(frames)]
        else:
            found = list(encode_views(self.model, torch.stack([preprocess(frame) for frame in frames])))
        missing = [torch.zeros_like(found[0])] * (self.model.config.num_views - len(found))
        views = torch.stack([*found, *missing]).unsqueeze(0)
        self._memory.calls += 1
        if not self.sampler.reuse:
            return encode_words(self.model, views, tokens)
        return self._words(found[0], views, tokens)

    def _view(self, index: int, frame: Frame, preprocess: Preprocess) -> Tensor:
        """[N, D] of one view, encoded alone, so that it has the same bits whether or not others changed."""
        known = self._memory.views.get(index)
        stale_is_fine = index > 0 and self._memory.calls % self.sampler.aux_every != 0
        if known is not None and (stale_is_fine or np.array_equal(known[0], frame)):
            return known[1]
        features = encode_views(self.model, preprocess(frame).unsqueeze(0))[0]
        self._memory.views[index] = (frame.copy(), features)
        return features

    def _words(self, main: Tensor, views: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        known = self._memory.words
        if known is not None and known[0] is main and torch.equal(known[1], tokens):
            return known[2][0], views[:, 1:].flatten(1, 2).float()
        answer = encode_words(self.model, views, tokens)
        self._memory.words = (main, tokens, answer)
        return answer

    def chunks(self, features: tuple[Tensor, Tensor], proprio: Tensor, *, seed: int) -> NDArray[np.float32]:
        """Chunks [N, T, dim] for N encoded observations; proprio [N, P] in model units."""
        if not self.sampler.graph or len(proprio) > 1:
            return predict_chunks(
                self.model,
                features=features,
                proprio=proprio,
                domain_id=self.domain_id,
                seed=seed,
                times=self.sampler.times,
            )
        noise = chunk_noise(self.model, 1, seed)
        if self._graph is None:
            self._graph = ChunkGraph(
                self.model, features, proprio, noise, domain_id=self.domain_id, times=self.sampler.times
            )
        return self._graph(features, proprio, noise)
