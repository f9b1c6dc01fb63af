"""Ablations in open loop: the error of every condition on the same held-out frames, with the same noise.

In: a policy and its demonstrations. Out: per condition and action field one error a frame. Also what conditions need
from the demonstrations: mean images and commands.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xvla_platform.adapt.robot_data import split_samples
from xvla_platform.closed_loop.conditions import (
    Condition,
    Material,
    cameras_of,
    changed,
    exchanged,
    mean_image,
)
from xvla_platform.data.images import oriented, read_frames
from xvla_platform.data.reader import DatasetReader
from xvla_platform.data.samples import SPLIT_SEED, Samples, split_episodes
from xvla_platform.modelling.precision import encode
from xvla_platform.policy.policy import Observation, Policy

FRAMES = 240
MEAN_FRAMES = 64
BATCH = 16
EVAL_SEED = 0


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Errors on held-out frames.

    Attributes:
        errors: Condition to action field to error of each frame [N], in `units`.
        episodes: [N] the episode of each frame.
    """

    errors: Mapping[str, Mapping[str, NDArray[Any]]]
    units: Mapping[str, str]
    episodes: NDArray[np.int64]


def material_of(policy: Policy, reader: DatasetReader) -> Material:
    """Mean images of training frames as the robot sends them, and every command of the demonstrations."""
    samples = split_samples(policy.record, reader, policy.binding, policy.model.config.num_actions)["train"][1]
    chosen = np.unique(np.linspace(0, len(samples) - 1, MEAN_FRAMES).astype(int))
    views = samples.images(chosen, as_recorded=True)
    return Material(
        mean_images={name: mean_image(view) for name, view in zip(cameras_of(samples.spec), views, strict=True)},
        instructions=tuple(sorted({episode.instruction for episode in reader.episodes if episode.instruction})),
    )


def held_out_commands(policy: Policy, reader: DatasetReader) -> list[str]:
    """The commands of the test episodes."""
    held_out = split_episodes(len(reader.episodes), policy.record.spec.dataset.held_out, SPLIT_SEED)[2]
    return [reader.episodes[episode].instruction for episode in held_out]


def measure_held_out(
    policy: Policy,
    reader: DatasetReader,
    conditions: Sequence[Condition],
    material: Material,
    *,
    frames: int = FRAMES,
    progress: Callable[[str, int], Callable[[int], None]] | None = None,
) -> HeldOut:
    """The policy's errors under each condition on at most `frames` evenly spaced frames of the test episodes."""
    samples = split_samples(policy.record, reader, policy.binding, policy.model.config.num_actions)["test"][1]
    chosen = np.unique(np.linspace(0, len(samples) - 1, frames).astype(int))
    target = samples.chunks(chosen)
    proprio = torch.from_numpy(samples.proprio(chosen))
    observations = _observations(samples, chosen)
    first = _first_images(samples, chosen)
    advance = progress("ablations", len(conditions)) if progress else None
    errors, plain = {}, None
    for condition in conditions:
        seen = condition.input in ("vision", "language")
        if seen or plain is None:
            altered = [
                changed(
                    observation,
                    condition,
                    material,
                    first_images=first[int(samples.episode_of[i])],
                    other_instruction=None,
                )
                for i, observation in zip(chosen, observations, strict=True)
            ]
            features = encode_all(policy, altered)
            plain = plain if seen else features
        else:
            features = plain
        with exchanged(policy, condition):
            predicted = policy.chunks_from_features(features, proprio, seed=EVAL_SEED)
        errors[condition.name] = policy.binding.errors(predicted, target)
        if advance is not None:
            advance(1)
    return HeldOut(errors=errors, units=policy.binding.error_units(), episodes=np.asarray(samples.episode_of[chosen]))


@torch.no_grad()
def encode_all(policy: Policy, observations: Sequence[Observation]) -> tuple[Tensor, Tensor]:
    """Features of many observations, in batches; equal ones of `Policy.act` up to rounding."""
    model = policy.encoder_of_sampler()
    cameras = policy.record.spec.ordered_cameras
    views, (height, width) = policy.model.config.num_views, policy.processor.size
    parts = []
    for start in range(0, len(observations), BATCH):
        batch = observations[start : start + BATCH]
        images = torch.zeros(len(batch), views, 3, height, width)
        mask = torch.zeros(len(batch), views, dtype=torch.bool)
        for view, camera in enumerate(cameras):
            stack = np.stack([oriented(observation.images[camera.name], camera) for observation in batch])
            images[:, view] = policy.processor.images(stack)
            mask[:, view] = True
        tokens = torch.tensor([policy.processor.tokens(observation.instruction) for observation in batch])
        parts.append(encode(model, input_ids=tokens, pixel_values=images, image_mask=mask))
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _observations(samples: Samples, chosen: NDArray[Any]) -> list[Observation]:
    views, states = samples.images(chosen, as_recorded=True), samples.raw_state(chosen)
    names = cameras_of(samples.spec)
    return [
        Observation(
            images={name: view[place] for name, view in zip(names, views, strict=True)},
            state=states[place],
            instruction=samples.instruction(int(index)),
        )
        for place, index in enumerate(chosen)
    ]


def _first_images(samples: Samples, chosen: NDArray[Any]) -> dict[int, dict[str, NDArray[np.uint8]]]:
    """The images of each chosen episode's first frame, as the robot sends them."""
    return {
        int(episode): {
            camera.name: read_frames(samples.reader, int(episode), camera, np.array([0]), as_recorded=True)[0]
            for camera in samples.spec.ordered_cameras
        }
        for episode in np.unique(samples.episode_of[chosen])
    }
