"""What an environment takes and gives, and the place where that is checked.

An environment is a `gymnasium.Env` for one declared robot. It gives what the robot records and takes what it records:

- `reset(seed=, options={"task": name})` and `step(action)` as gymnasium has them; equal seeds give equal episodes.
- Observation: a dict of `images` (uint8 [H, W, 3] by camera name, as the robot sends them), `state` (float64 [P], the
  recorded state vector in recorded units) and `instruction` (text).
- Action: float64 [A], one row of the dataset's action vector in recorded units, due one control tick later.
- `info` of every step: `success` (bool), `approached` (bool: did the hand go for what the instruction names; None while
  that is open, or where it is unknown) and `seconds` (the episode's clock; with a success, when it was done). `info`
  of a reset may have `other_instruction`: a command for something else in the same scene, for the language ablation.
- `metadata["tasks"]`: names of its tasks. `metadata["time_limit_s"]` and `metadata["control_hz"]` are optional.
- An environment whose images are dear may have an attribute `images_wanted`: it is set before every step, and while
  it is False the observation may come without images.
"""

import math
import string
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xvla_platform.errors import XvlaError
from xvla_platform.specs.embodiment import EmbodimentSpec

DEFAULT_TASK = "default"
TIME_LIMIT_S = 30.0
LONGEST_INSTRUCTION = 1000
IMAGES_WANTED = "images_wanted"


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What an environment said after one tick; `images` is None where none were asked for."""

    images: Mapping[str, NDArray[np.uint8]] | None
    state: NDArray[np.float64]
    instruction: str
    success: bool
    approached: bool | None
    seconds: float
    over: str | None
    other_instruction: str | None = None


class CheckedEnvironment:
    """An environment held to its contract: what breaks it is one `XvlaError` that says where.

    Attributes:
        tasks: Its tasks.
        time_limit_s: How long an episode may last. longest_s: After how long the environment ends it, if it says so.
    """

    def __init__(self, env: Any, spec: EmbodimentSpec) -> None:
        gymnasium = require_gymnasium()
        if not isinstance(env, gymnasium.Env):
            raise XvlaError("is not a gymnasium environment", field="env", found=type(env).__name__)
        self.env = env
        self.spec = spec
        metadata = env.metadata
        tasks = metadata.get("tasks") or (DEFAULT_TASK,)
        if isinstance(tasks, str) or not all(isinstance(task, str) and task for task in tasks):
            raise XvlaError("is not a list of names", field="env.metadata['tasks']", found=tasks)
        self.tasks: tuple[str, ...] = tuple(tasks)
        self.longest_s = metadata.get("time_limit_s")
        self.time_limit_s = _positive(metadata.get("time_limit_s", TIME_LIMIT_S), "env.metadata['time_limit_s']")
        rate = metadata.get("control_hz", spec.control_hz)
        if rate != spec.control_hz:
            raise XvlaError(
                "runs at another rate than the robot's",
                field="env.metadata['control_hz']",
                found=rate,
                allowed=f"{spec.control_hz:g}",
            )
        shape = getattr(env.action_space, "shape", None)
        if shape != (spec.action.size,):
            raise XvlaError(
                "does not take a row of the action vector", field="env.action_space", found=shape, allowed=_row(spec)
            )
        self._can_skip_images = hasattr(env.unwrapped, IMAGES_WANTED)
        self._seconds = 0.0
        self._instruction = ""

    def reset(self, seed: int, task: str) -> Moment:
        """Begin an episode; the first moment always has images."""
        if task not in self.tasks:
            raise XvlaError("the environment has no such task", field="tasks", found=task, allowed=self.tasks)
        self._want_images(True)
        with _own_errors("reset"):
            answer = self.env.reset(seed=seed, options={"task": task})
        if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], Mapping)):
            raise XvlaError("does not return (observation, info)", field="env.reset", found=type(answer).__name__)
        observation, info = answer
        other = info.get("other_instruction")
        if other is not None and not isinstance(other, str):
            raise XvlaError("is not text", field="info['other_instruction']", found=type(other).__name__)
        self._seconds = 0.0
        images, state, self._instruction = check_observation(self.spec, observation, images=True)
        return Moment(
            images=images,
            state=state,
            instruction=self._instruction,
            success=False,
            approached=None,
            seconds=0.0,
            over=None,
            other_instruction=other,
        )

    def step(self, row: NDArray[np.float64], *, images: bool) -> Moment:
        """Give one action row [A] and see what came of it."""
        self._want_images(images)
        with _own_errors("step"):
            answer = self.env.step(row)
        if not (isinstance(answer, tuple) and len(answer) == 5):
            raise XvlaError("does not return gymnasium's five values", field="env.step", found=type(answer).__name__)
        observation, _, terminated, truncated, info = answer
        seen, state, instruction = check_observation(self.spec, observation, images=images)
        success, approached, seconds = check_info(info)
        if seconds < 0 or (seconds < self._seconds and not success):
            raise XvlaError(
                "runs backwards",
                field="info['seconds']",
                found=f"{seconds:g} after {self._seconds:g}",
                allowed="rising",
            )
        self._seconds = seconds
        over = "terminated" if terminated else "truncated" if truncated else None
        return Moment(
            images=seen,
            state=state,
            instruction=instruction,
            success=success,
            approached=approached,
            seconds=seconds,
            over=over,
        )

    def close(self) -> None:
        """Give back what the environment holds."""
        self.env.close()

    def _want_images(self, wanted: bool) -> None:
        if self._can_skip_images:
            setattr(self.env.unwrapped, IMAGES_WANTED, wanted)


def require_gymnasium() -> Any:
    """The module `gymnasium`, or what to install."""
    try:
        import gymnasium
    except ModuleNotFoundError:
        raise XvlaError("gymnasium is not installed", hint="pip install 'xvla-platform[eval]'") from None
    return gymnasium


def spaces_of(spec: EmbodimentSpec) -> tuple[Any, Any]:
    """gymnasium's observation and action space of a robot's environment."""
    spaces = require_gymnasium().spaces
    images: dict[str, Any] = {
        camera.name: spaces.Box(0, 255, (*camera.resolution, 3), np.uint8) for camera in spec.cameras
    }
    observation = spaces.Dict(
        {
            "images": spaces.Dict(images),
            "state": spaces.Box(-np.inf, np.inf, (spec.proprio.size,), np.float64),
            "instruction": spaces.Text(LONGEST_INSTRUCTION, min_length=0, charset=string.printable),
        }
    )
    return observation, spaces.Box(-np.inf, np.inf, (spec.action.size,), np.float64)


def check_observation(
    spec: EmbodimentSpec, observation: Any, *, images: bool
) -> tuple[dict[str, NDArray[np.uint8]] | None, NDArray[np.float64], str]:
    """Images by camera (None unless asked for), state [P] and instruction, or an error that names what is wrong."""
    if not isinstance(observation, Mapping):
        raise XvlaError("is not a dict", field="observation", found=type(observation).__name__)
    needed = ("images", "state", "instruction") if images else ("state", "instruction")
    missing = [name for name in needed if name not in observation]
    if missing:
        raise XvlaError("lacks an entry", field=f"observation['{missing[0]}']", found=_listed(observation))
    instruction = observation["instruction"]
    if not isinstance(instruction, str):
        raise XvlaError("is not text", field="observation['instruction']", found=type(instruction).__name__)
    state = _array(observation["state"], "observation['state']", np.float64, (spec.proprio.size,))
    if not np.isfinite(state).all():
        place = int(np.flatnonzero(~np.isfinite(state))[0])
        raise XvlaError("is not finite", field=f"observation['state'][{place}]", found=float(state[place]))
    return (_images(spec, observation["images"]) if images else None), state.copy(), instruction


def check_info(info: Any) -> tuple[bool, bool | None, float]:
    """`success`, `approached` and `seconds` of a step's `info`."""
    if not isinstance(info, Mapping):
        raise XvlaError("is not a dict", field="info", found=type(info).__name__)
    missing = [name for name in ("success", "approached", "seconds") if name not in info]
    if missing:
        raise XvlaError("lacks an entry", field=f"info['{missing[0]}']", found=_listed(info))
    success, approached, seconds = info["success"], info["approached"], info["seconds"]
    if not isinstance(success, (bool, np.bool_)):
        raise XvlaError("is not a bool", field="info['success']", found=repr(success))
    if approached is not None and not isinstance(approached, (bool, np.bool_)):
        raise XvlaError("is neither a bool nor None", field="info['approached']", found=repr(approached))
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float, np.number)) or not math.isfinite(seconds):
        raise XvlaError("is not a finite number", field="info['seconds']", found=repr(seconds))
    return bool(success), None if approached is None else bool(approached), float(seconds)


def _images(spec: EmbodimentSpec, images: Any) -> dict[str, NDArray[np.uint8]]:
    if not isinstance(images, Mapping):
        raise XvlaError("is not a dict", field="observation['images']", found=type(images).__name__)
    names = [camera.name for camera in spec.cameras]
    if set(images) != set(names):
        raise XvlaError(
            "are not the declared cameras",
            field="observation['images']",
            found=_listed(images),
            allowed=names,
        )
    # Copies, as a renderer may draw its next picture into the same memory.
    return {
        camera.name: _array(
            images[camera.name], f"observation['images']['{camera.name}']", np.uint8, (*camera.resolution, 3)
        ).copy()
        for camera in spec.cameras
    }


def _array(value: Any, field: str, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    wanted = f"{np.dtype(dtype).name} {list(shape)}"
    if not isinstance(value, np.ndarray):
        raise XvlaError("is not an array", field=field, found=type(value).__name__, allowed=wanted)
    if value.dtype != dtype or value.shape != shape:
        raise XvlaError(
            "has the wrong form", field=field, found=f"{value.dtype.name} {list(value.shape)}", allowed=wanted
        )
    return value


def _listed(names: Mapping[Any, Any]) -> str:
    return ", ".join(sorted(map(str, names))) or "none"


def _positive(value: Any, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (0 < value < math.inf):
        raise XvlaError("is not a positive number", field=field, found=repr(value))
    return float(value)


def _row(spec: EmbodimentSpec) -> str:
    return f"({spec.action.size},): {', '.join(field.name for field in spec.action.fields)}"


@contextmanager
def _own_errors(call: str) -> Iterator[None]:
    """An environment's failure as one line with the place in its code; its traceback stays reachable as the cause."""
    try:
        yield
    except XvlaError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise XvlaError(
            f"the environment failed: {type(error).__name__}: {error}",
            file=f"{place.filename}:{place.lineno}",
            field=f"env.{call}",
        ) from error
