"""The promises of an environment that a plugin contributes for closed-loop evaluation.

In: a robot's plugin folder. Out: nothing, or a `NotConformantError`. The environment is driven with the row that the
robot's own state suggests (absolute fields stay where they are, relative ones at zero), so nothing should fly about.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xvla_platform.closed_loop.contract import CheckedEnvironment, Moment, spaces_of
from xvla_platform.closed_loop.sources import environment_source
from xvla_platform.data.canonical import canonical_state, from_canonical
from xvla_platform.data.references import reference_field
from xvla_platform.errors import XvlaError
from xvla_platform.platform.plugins import load_plugin
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.testing.conformance import promised, require

STEPS = 6
SEEDS = (3, 4)


def assert_environment_conformant(
    folder: str | Path, *, name: str | None = None, options: Mapping[str, str] | None = None
) -> None:
    """Hold every promise of a robot's environment: a few steps of each of its tasks.

    Args:
        folder: The robot's plugin folder.
        name: Which environment, where several have the robot.
        options: As `--env-option` gives them.
    """
    folder = Path(folder).resolve()
    spec = load_plugin(folder).spec
    with promised("KIT501", folder):
        raw = environment_source(spec, folder, name=name, options=options)()
        env = CheckedEnvironment(raw, spec)
    try:
        _check_spaces(raw, spec, folder)
        for task in env.tasks:
            with promised("KIT503", folder):
                first = _rollout(env, spec, SEEDS[0], task)
            _check_info(env, spec, task, folder)
            other = _rollout(env, spec, SEEDS[1], task)
            again = _rollout(env, spec, SEEDS[0], task)
            require("KIT505", _same(first, again), f"task {task}, seed {SEEDS[0]} after seed {SEEDS[1]}", folder)
            require("KIT506", not _same(first, other), f"task {task}: seeds {SEEDS[0]} and {SEEDS[1]} alike", folder)
    finally:
        with promised("KIT507", folder):
            env.close()


def _check_spaces(raw: Any, spec: EmbodimentSpec, folder: Path) -> None:
    observation, action = spaces_of(spec)
    with promised("KIT502", folder):
        declared = raw.observation_space.spaces
        require("KIT502", set(declared) == set(observation.spaces), f"observations of {sorted(declared)}", folder)
        for key in ("images", "state"):
            require("KIT502", declared[key] == observation[key], f"{key}: {declared[key]}", folder)
    require("KIT502", raw.action_space.shape == action.shape, f"action_space {raw.action_space}", folder)


def _check_info(env: CheckedEnvironment, spec: EmbodimentSpec, task: str, folder: Path) -> None:
    """The clock rises with the ticks, and an image is there whenever it is asked for."""
    with promised("KIT504", folder):
        moment = env.reset(SEEDS[0], task)
        before = 0.0
        for tick in range(STEPS):
            moment = env.step(_hold(spec, moment.state), images=tick % 2 == 1)
            require("KIT504", moment.seconds > before, f"seconds stay at {before:g} in step {tick}", folder)
            before = moment.seconds
            if moment.over or moment.success:
                break


def _rollout(env: CheckedEnvironment, spec: EmbodimentSpec, seed: int, task: str) -> list[Moment]:
    moments = [env.reset(seed, task)]
    for _ in range(STEPS):
        moments.append(env.step(_hold(spec, moments[-1].state), images=True))
        if moments[-1].over or moments[-1].success:
            break
    return moments


def _hold(spec: EmbodimentSpec, state: NDArray[np.float64]) -> NDArray[np.float64]:
    """A row [A] that keeps the robot where it is, as far as its state says where that is."""
    now, parts = canonical_state(spec, state), []
    for field in spec.action.fields:
        if field.kind == "ignored":
            parts.append(np.full(field.size, field.value, dtype=np.float64))
            continue
        if field.reference != "absolute":
            still = np.eye(3) if field.kind == "rotation" else np.zeros(field.size)
            parts.append(from_canonical(field, still))
            continue
        try:
            source = reference_field(spec.proprio.fields, field)
        except XvlaError:
            parts.append(np.zeros(field.size))
            continue
        parts.append(from_canonical(field, now[source.name]))
    return np.concatenate(parts)


def _same(first: list[Moment], second: list[Moment]) -> bool:
    """Whether two rollouts are one: words, numbers to a millionth, images up to rounding."""
    if len(first) != len(second):
        return False
    for a, b in zip(first, second, strict=True):
        if a.instruction != b.instruction or not np.allclose(a.state, b.state, rtol=1e-6, atol=1e-6):
            return False
        assert a.images is not None
        assert b.images is not None
        for camera, image in a.images.items():
            if np.mean(np.abs(image.astype(int) - b.images[camera].astype(int)) > 2) > 0.001:
                return False
    return True
