"""A policy: one observation in the robot's own units in, one action chunk in the robot's own units out.

In: camera images by name, the recorded state vector, an instruction. Out: absolute targets per action field and
the rows of the dataset's action column, each with its time in seconds. The transforms are those of training,
built from the adaptation's own files.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xvla_platform.data.binding import Binding
from xvla_platform.data.images import oriented
from xvla_platform.errors import XvlaError
from xvla_platform.modelling.checkpoint import load_into, load_model
from xvla_platform.modelling.processor import Processor
from xvla_platform.modelling.sampling import EXACT, Sampler, find_sampler, require
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.platform.artifact import load_manifest, load_record
from xvla_platform.platform.bases import ResolvedBase
from xvla_platform.platform.embodiments import base_space
from xvla_platform.platform.files import read_mapping
from xvla_platform.policy.accepted import check_images, check_state, check_words
from xvla_platform.policy.adapter import attach, read_adapter
from xvla_platform.policy.mode import Mode
from xvla_platform.specs.base import require_seed
from xvla_platform.specs.records import EmbodimentRecord


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What the robot sees and is told.

    Attributes:
        images: uint8 [H, W, 3] by declared camera name, as the robot records them (the declared flip and order of
            colours are applied here), in the declared resolution or in the model's own; every declared camera must
            be there.
        state: [P] the proprio vector in the dataset's own units, finite.
        instruction: The language command.
    """

    images: Mapping[str, NDArray[np.uint8]]
    state: NDArray[np.float64]
    instruction: str


@dataclass(frozen=True, kw_only=True)
class ActionChunk:
    """What the robot should do.

    Attributes:
        times: [T] seconds from now at which each target is due.
        fields: Absolute targets [T, size] by action field, in declared units.
        columns: [T, A] rows of the dataset's action vector (relative fields relative to the state now, or to that at
            the episode's first frame; ignored fields filled with their declared value).
        model: [T, real_dim] the same in model units.
    """

    times: NDArray[np.float64]
    fields: Mapping[str, NDArray[np.float64]]
    columns: NDArray[np.float64]
    model: NDArray[np.float32]


class Policy:
    """An adaptation over its base, ready to act.

    Only robots with fields that are `relative_to_first` need an episode's beginning: `reset` before it, or the first
    state with every call.
    """

    def __init__(
        self,
        model: XVLA,
        processor: Processor,
        binding: Binding,
        record: EmbodimentRecord,
        sampler: Sampler = EXACT,
    ) -> None:
        self.model = model
        self.processor = processor
        self.binding = binding
        self.record = record
        self.sampler = sampler
        self._modes: dict[Sampler, Mode] = {}
        self._begins = False
        self._first_state: NDArray[np.float64] | None = None
        self._tokens: tuple[str, Tensor] | None = None
        self.mode()

    def mode(self, sampler: Sampler | None = None) -> Mode:
        """The model prepared for a sampler, this policy's own unless given; kept for the next call."""
        chosen = sampler or self.sampler
        if chosen not in self._modes:
            self._modes[chosen] = Mode(self.model, chosen, self.record.slot.domain_id)
        return self._modes[chosen]

    def encoder_of_sampler(self) -> XVLA:
        """The model whose features the sampler's chunks are made from; its encoder may be rounded.

        8-bit layers round a batch by its largest number, so frames encoded together come out a little coarser than
        alone. A sampler that keeps features from call to call is refused: recorded frames in batches follow no call.
        """
        if self.sampler.reuse:
            raise XvlaError(
                "the sampler keeps features from call to call, which recorded frames in batches do not show",
                field="sampler",
                found=self.sampler.name,
                hint="use `xvla eval ROBOT --samplers` or --closed-loop, which call it as a robot does",
            )
        return self.mode().model

    def reset(self) -> None:
        """A new episode begins: the state of the next observation is its first, and no view is remembered."""
        self._begins, self._first_state = True, None
        for mode in self._modes.values():
            mode.reset()

    def act(
        self,
        observation: Observation,
        *,
        first_state: NDArray[np.float64] | None = None,
        seed: int = 0,
        sampler: Sampler | str | None = None,
    ) -> ActionChunk:
        """One action chunk; equal seeds give equal chunks.

        Args:
            first_state: [P] the state at the episode's first frame, instead of the one remembered since `reset`.
            sampler: Another way to compute the chunk than the policy's own, or its name.

        Raises:
            XvlaError: A seed that is none; images, a state or words of another form than the robot's declaration says,
                before anything of the observation is remembered.
        """
        require_seed(seed)
        self._check(observation, first_state)
        if self._begins:
            self._begins, self._first_state = False, np.array(observation.state, dtype=np.float64)
        mode = self.mode(find_sampler(sampler) if isinstance(sampler, str) else sampler)
        features = mode.encode(self._frames(observation), self._preprocess, self._words(observation.instruction))
        proprio = torch.from_numpy(self.binding.proprio(observation.state[None]))
        chunk = mode.chunks(features, proprio, seed=seed)[0]
        horizon = self.record.spec.horizon_s
        first = self._first_state if first_state is None else first_state
        fields, columns = self.binding.answer(chunk, observation.state, first)
        times = np.arange(1, len(chunk) + 1) * horizon / len(chunk)
        return ActionChunk(times=times, fields=fields, columns=columns, model=chunk)

    def chunks_from_features(
        self, features: tuple[Tensor, Tensor], proprio: Tensor, *, seed: int, sampler: Sampler | None = None
    ) -> NDArray[np.float32]:
        """Chunks [N, T, dim] for already encoded observations; proprio [N, P] in model units."""
        return self.mode(sampler).chunks(features, proprio, seed=seed)

    def _frames(self, observation: Observation) -> list[NDArray[np.uint8]]:
        """The views as RGB the right way up, main view first."""
        return [oriented(observation.images[camera.name], camera) for camera in self.record.spec.ordered_cameras]

    def _check(self, observation: Observation, first_state: NDArray[np.float64] | None) -> None:
        spec = self.record.spec
        check_images(observation.images, spec, self.processor.size)
        check_state(observation.state, spec.proprio, "state")
        check_words(observation.instruction)
        if first_state is not None:
            check_state(first_state, spec.proprio, "first_state")

    def _preprocess(self, frame: NDArray[np.uint8]) -> Tensor:
        return self.processor.images(frame[None])[0]

    def _words(self, instruction: str) -> Tensor:
        """[1, L] token ids; the sentence of the call before is not cut into tokens again."""
        if self._tokens is None or self._tokens[0] != instruction:
            self._tokens = (instruction, torch.tensor([self.processor.tokens(instruction)]))
        return self._tokens[1]


def load_policy(folder: Path, *, base: ResolvedBase, device: Any = "cpu", sampler: Sampler = EXACT) -> Policy:
    """Load a registered adaptation over its base; another base than it was made for is an error.

    Args:
        sampler: How chunks are computed unless a call says otherwise; refused where the device cannot run it.
    """
    require(sampler, torch.device(device))
    manifest, record = load_manifest(folder), load_record(folder)
    if base.fingerprint != manifest.base.fingerprint:
        raise XvlaError(
            "the base's weights are not those the adaptation was made for",
            file=folder,
            field="base.fingerprint",
            found=f"{base.id} with {base.fingerprint[:12]}",
            allowed=f"{manifest.base.id} with {manifest.base.fingerprint[:12]}",
        )
    model = load_model(base.folder, device=device, num_domains=record.slot.num_domains)
    if manifest.tuning == "full":
        load_into(model, folder)
    attach(model, read_adapter(folder), record.slot.domain_id, folder)
    processor = Processor.from_folder(base.folder, model.config).for_robot(record.spec)
    statistics = read_mapping(folder / "stats.json")
    binding = Binding(record.spec, base_space(base), record.rotation_layout, statistics, folder=folder)
    return Policy(model.eval(), processor, binding, record, sampler)
