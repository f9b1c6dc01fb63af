"""`xvla eval`: an adaptation measured again, from its own files.

In: a registered adaptation and the dataset it was trained on. Out: the errors on the same held-out episodes,
beside the ones recorded when it was made. Without the dataset, the example observation inside the artifact is
answered again and compared.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xvla_platform.adapt.artifact import SHOWN_FRAMES
from xvla_platform.adapt.robot_data import bare_split, split_samples, with_features, with_frames
from xvla_platform.data.reader import DatasetReader
from xvla_platform.evaluation.open_loop import field_errors
from xvla_platform.evaluation.plots import plot_trajectories
from xvla_platform.platform.files import read_json
from xvla_platform.policy.example import load_example
from xvla_platform.policy.policy import Policy

SAME_DEVICE, OTHER_DEVICE = 1e-3, 5e-2


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Errors on the held-out episodes, now and as recorded; `units` by field."""

    errors: Mapping[str, float]
    recorded: Mapping[str, float]
    units: Mapping[str, str]
    episodes: int
    frames: int


def measure(
    folder: Path,
    policy: Policy,
    reader: DatasetReader,
    *,
    picture: Path,
    progress: Callable[[str, int], Callable[[int], None]] | None = None,
) -> Measured:
    """Measure on the test episodes, with features of the encoder as the policy's sampler has it, and draw `picture`."""
    encoder = policy.encoder_of_sampler()
    results = read_json(folder / "metrics.json")
    record, binding = policy.record, policy.binding
    episodes, samples = split_samples(record, reader, binding, policy.model.config.num_actions)["test"]
    scratch, processor = picture.parent / "scratch", policy.processor
    split = bare_split("test", episodes, samples, record=record, processor=processor, config=policy.model.config)
    split = with_frames(split, processor, scratch, progress)
    source = with_features(split, encoder, processor, scratch, progress).source
    assert source.features is not None
    predicted = policy.chunks_from_features(source.features, source.proprio, seed=int(results["eval_seed"]))
    shutil.rmtree(scratch, ignore_errors=True)
    target = source.action.numpy()
    chosen = np.unique(np.linspace(0.05 * len(samples), 0.85 * len(samples), SHOWN_FRAMES).astype(int))
    picture.parent.mkdir(parents=True, exist_ok=True)
    plot_trajectories(
        picture,
        binding,
        target=target[chosen],
        predicted=predicted[chosen],
        unadapted=None,
        images=list(samples.images(chosen)[0]),
        title=f"{record.spec.name}: predicted against recorded, held-out episodes",
        horizon_s=record.spec.horizon_s,
    )
    return Measured(
        errors=field_errors(binding, predicted, target),
        recorded=results["table"][-1]["errors"],
        units=binding.error_units(),
        episodes=len(episodes),
        frames=len(samples),
    )


def example_threshold(folder: Path, here: str) -> float:
    """How far the example's chunk may lie from the recorded one on the device `here`, in model units.

    The device that made it repeats it almost to the bit; another one, or one that is not known, rounds the encoder
    otherwise, and the sampler carries that on.
    """
    made_on = read_json(folder / "metrics.json").get("device")
    return SAME_DEVICE if made_on == here else OTHER_DEVICE


def example_difference(folder: Path, policy: Policy) -> tuple[float, NDArray[Any]]:
    """Largest difference between the example's recorded chunk and the one answered now, in model units."""
    example = load_example(folder)
    policy.reset()
    chunk = policy.act(example.observation, seed=example.seed).model
    return float(np.abs(chunk - example.chunk).max()), chunk
