"""The feature declarations of a LeRobot hardware package as a dataset would record them.

In: the name of an installed `lerobot_robot_*` package (or the folder of its sources), optionally `:Class`. Out: the
features of the dataset that `lerobot-record` would write with it. The package runs in a process of its own, is never
connected, and needs neither hardware nor LeRobot.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xvla_platform.data.reader import FeatureInfo
from xvla_platform.errors import XvlaError
from xvla_platform.measure.guess import Guess
from xvla_platform.scaffold.names import Segment

PREFIX = "lerobot_robot_"
SECONDS = 60
MODES = {
    "DEGREES": ("deg", "the motors are read in degrees"),
    "RANGE_M100_100": ("percent", "the motors are read as -100..100 of their range"),
    "RANGE_0_100": ("percent", "the motors are read as 0..100 of their range"),
}


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What a package declares: features as in a LeRobot dataset, and motor name to the unit it is read in."""

    package: str
    robot_type: str
    features: dict[str, FeatureInfo]
    units: dict[str, tuple[str, str]]
    notes: tuple[str, ...] = ()


def hardware_features(text: str) -> Hardware:
    """The features of the robot in package `text` (`lerobot_robot_xyz`, `lerobot_robot_xyz:Robot`, or a folder)."""
    package, folder = _find(text)
    answer = _ask(package, folder)
    name = package.partition(":")[0]
    if "robots" in answer:
        robots = answer["robots"]
        if not robots:
            raise XvlaError("the package shows no robot class with a `config_class`", field="--from", found=text)
        raise XvlaError(
            "the package brings several robots" if not answer["wanted"] else "the package has no such robot",
            field="--from",
            found=answer["wanted"] or text,
            allowed=[f"{name}:{robot}" for robot in robots],
        )
    if "not_known" in answer:
        raise XvlaError(
            f"its features depend on {answer['not_known']}, which is not installed here",
            field="--from",
            found=text,
            hint="install that package, or start from a dataset recorded with the robot",
        )
    if "error" in answer:
        raise XvlaError(f"the package cannot be asked for its features: {answer['error']}", field="--from", found=text)
    features = {**_vector("observation.state", answer["observation"]), **_cameras(answer["observation"])}
    features |= _vector("action", answer["action"])
    notes = ["there is no recording yet: everything that only numbers can tell is blank"]
    if not any(feature.is_camera for feature in features.values()):
        notes.append("the robot's default configuration has no camera; give yours")
    if answer["absent"]:
        notes.append(f"not installed here and not needed for the features: {', '.join(sorted(answer['absent']))}")
    return Hardware(
        package=name,
        robot_type=str(answer["robot_type"]),
        features=features,
        units={motor: MODES[mode] for motor, mode in answer["modes"].items() if mode in MODES},
        notes=tuple(notes),
    )


def with_units(
    segments: Sequence[Segment], names: Sequence[str], units: Mapping[str, tuple[str, str]]
) -> list[Segment]:
    """The segments with what the package's motors say of them: their unit, and that commands are goal positions."""
    goal = Guess(value="absolute", confidence=0.8, evidence="LeRobot's motors are commanded by goal positions")
    out = []
    for part in segments:
        facts = dict(part.facts)
        motors = [name.removesuffix(".pos") for name in names[part.start : part.stop]]
        found = {units.get(motor) or units.get(motor.partition("_")[2]) for motor in motors}
        known = found.pop() if len(found) == 1 else None
        if known is not None and part.kind in ("joint", "gripper"):
            facts["unit"] = Guess(value=known[0], confidence=0.92, evidence=known[1])
        if part.kind == "joint" and "reference" not in facts and all(name.endswith(".pos") for name in names):
            facts["reference"] = goal
        out.append(replace(part, facts=facts))
    return out


def _find(text: str) -> tuple[str, Path | None]:
    """The package's import name, and the folder to import it from where it is not installed."""
    path, _, robot = text.partition(":")
    suffix = f":{robot}" if robot else ""
    folder = Path(path).expanduser()
    name = re.sub(r"[^A-Za-z0-9_]", "_", folder.name)
    if folder.is_dir():
        # Either the package itself, or the project around it.
        for parent in (folder, folder / "src", folder.parent):
            if (parent / name / "__init__.py").is_file():
                return f"{name}{suffix}", parent.resolve()
        raise XvlaError("holds no package of its own name", file=folder, found=name)
    if not re.fullmatch(r"[A-Za-z0-9_]+", name) or importlib.util.find_spec(name) is None:
        raise XvlaError(
            "no such package is installed",
            field="--from",
            found=text,
            hint="install the robot's own package first; neither LeRobot nor the robot's drivers are needed",
        )
    return f"{name}{suffix}", None


def _ask(package: str, folder: Path | None) -> dict[str, Any]:
    probe = Path(__file__).with_name("hardware_probe.py")
    # -P keeps the probe's own folder out of the module search path.
    command = [sys.executable, "-P", str(probe), package, *([str(folder)] if folder else [])]
    with tempfile.TemporaryDirectory() as scratch:
        own = {"HF_LEROBOT_HOME": scratch, "HF_HOME": scratch, "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            result = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
                cwd=scratch,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **own},
            )
        except subprocess.TimeoutExpired:
            raise XvlaError(f"the package gave no answer within {SECONDS} s", field="--from", found=package) from None
    lines = result.stdout.strip().splitlines()
    try:
        answer = json.loads(lines[-1]) if lines else None
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        reason = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
        raise XvlaError(f"the package cannot be asked for its features: {reason}", field="--from", found=package)
    return answer


def _vector(key: str, features: list[list[Any]]) -> dict[str, FeatureInfo]:
    """The numbers of a feature list as one column, the way LeRobot's recorder lays them out."""
    names: list[str] = []
    for name, shape in features:
        if not shape:
            names.append(name)
        elif len(shape) == 1:
            names += [f"{name}_{index}" for index in range(shape[0])]
    if not names:
        return {}
    return {key: FeatureInfo(dtype="float32", shape=(len(names),), names=names)}


def _cameras(features: list[list[Any]]) -> dict[str, FeatureInfo]:
    return {
        f"observation.images.{name}": FeatureInfo(dtype="video", shape=tuple(shape), names=None)
        for name, shape in features
        if len(shape) == 3
    }
