"""Planted mistakes: each is there, is the same for the same seed, and leaves everything else as it was."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY
from scipy.spatial.transform import Rotation

from xvla_platform.data.lerobot import open_lerobot
from xvla_platform.data.reader import DatasetReader
from xvla_platform.data.vectors import read_vector
from xvla_platform.errors import XvlaError
from xvla_platform.platform.plugins import load_plugin
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.testing.faults import FAULTS, CannotBePlantedError, Fault, recode
from xvla_platform.testing.faults.declare import field_of
from xvla_platform.testing.faults.views import RowsView
from xvla_platform.testing.planted import Kept

EPISODES = 8
CASES = [(fault, strength) for fault in FAULTS for strength in fault.strengths]
Robot = tuple[DatasetReader, EmbodimentSpec]


@pytest.fixture(scope="module")
def robot() -> Robot:
    """The worked example, its first episodes."""
    plugin = load_plugin(REPOSITORY / "plugins" / "my_arm")
    reader = open_lerobot(plugin.folder / "demonstrations")
    first = [(episode.index, np.arange(episode.length)) for episode in reader.episodes[:EPISODES]]
    return RowsView(Kept(reader), first, renumbered=False), plugin.spec


def answers(reader: DatasetReader, spec: EmbodimentSpec) -> dict[str, Any]:
    """What a dataset and its declaration say, as values that compare."""
    numbers = []
    for episode in range(len(reader.episodes)):
        keys = [key for key in ("observation.state", "action") if key in reader.info.features]
        numbers.append(tuple(values.tobytes() for values in reader.columns(episode, keys).values()))
    looks = []
    for episode in (0, 3, 7):
        length = reader.episodes[episode].length
        for camera in ("observation.images.front", "observation.images.wrist"):
            looks.append(reader.frames(episode, camera, [0, length // 2, length - 1]).tobytes())
    return {
        "declaration": spec.model_dump_json(),
        "info": (reader.info.fps, reader.info.episodes, reader.info.frames),
        "episodes": [(episode.length, episode.instruction) for episode in reader.episodes],
        "numbers": numbers,
        "times": [reader.timestamps(episode).tobytes() for episode in range(len(reader.episodes))],
        "looks": looks,
    }


@pytest.fixture(scope="module")
def clean(robot: Robot) -> dict[str, Any]:
    return answers(*robot)


def test_the_kinds_and_their_names() -> None:
    assert len(FAULTS) >= 30
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert len(CASES) >= 100
    assert [fault.name for fault in FAULTS if len(fault.about.split()) < 3 or not fault.strengths] == []


@pytest.mark.parametrize(("fault", "strength"), CASES, ids=[f"{fault.name}: {name}" for fault, name in CASES])
def test_a_planted_mistake_is_there_and_repeats(
    robot: Robot, clean: dict[str, Any], fault: Fault, strength: str
) -> None:
    """Every strength changes something, one seed always in the same way, read in any order."""
    if (fault.name, strength) == ("position_unit_declared", "a hundred"):
        with pytest.raises(CannotBePlantedError, match="no unit of length is 100 times a mm"):
            fault.plant(*robot, strength, 1)
        return
    planted = fault.plant(*robot, strength, 1)
    found = answers(*planted)
    assert found != clean
    again, declaration = fault.plant(*robot, strength, 1)
    again.columns(len(again.episodes) - 1, [])
    assert answers(again, declaration) == found
    lengths = [episode.length for episode in planted[0].episodes]
    assert planted[0].info.episodes == len(lengths)
    assert planted[0].info.frames == sum(lengths)
    for episode in (0, len(lengths) - 1):
        assert len(planted[0].timestamps(episode)) == lengths[episode]
        state = planted[0].columns(episode, ["observation.state"])["observation.state"]
        assert state.shape == (lengths[episode], *planted[0].info.features["observation.state"].shape)


def test_seeds_place_a_mistake_elsewhere(robot: Robot) -> None:
    for fault, strength in CASES:
        if "share" in fault.strengths[strength] and fault.strengths[strength]["share"] < 1:
            seen = {str(answers(*fault.plant(*robot, strength, seed))) for seed in (1, 2, 3)}
            assert len(seen) > 1, (fault.name, strength)


def test_an_unknown_strength_is_one_line(robot: Robot) -> None:
    with pytest.raises(XvlaError, match=r"fault spikes has no such strength; found huge; allowed: 3 ranges"):
        next(fault for fault in FAULTS if fault.name == "spikes").plant(*robot, "huge", 0)


@pytest.mark.parametrize("format", ["quaternion_wxyz", "axis_angle", "euler_yzx_intrinsic", "rot6d_columns", "matrix"])
def test_a_recoded_robot_moves_as_before(robot: Robot, format: str) -> None:
    """The other formats that mistakes start from hold the same rotations."""
    unit = "rad" if format.startswith(("euler", "axis")) else None
    reader, spec = recode.with_rotations(*robot, format, unit)
    before, columns = field_of(robot[1], "action", "rotation")
    after, other = field_of(spec, "action", "rotation")
    recorded = read_vector(robot[0], 2, robot[1].action, "action")
    recoded = read_vector(reader, 2, spec.action, "action")
    truth = Rotation.from_euler("xyz", recorded[:, columns], degrees=True)
    assert (recode.decode(recoded[:, other], format, unit) * truth.inv()).magnitude().max() < 1e-9
    assert (before.format, after.format) == ("euler_xyz_extrinsic", format)


@pytest.mark.parametrize("reference", ["relative", "relative_to_first"])
@pytest.mark.parametrize("axes", ["frame", "tool"])
@pytest.mark.parametrize("format", ["axis_angle", "quaternion_xyzw"])
def test_recoded_deltas_lead_to_the_same_targets(robot: Robot, reference: str, axes: str, format: str) -> None:
    """Recorded as changes, an episode is bound to the same absolute targets."""
    from xvla_platform.data.canonical import absolute_targets

    robot = recode.with_rotations(*robot, format, "rad" if format == "axis_angle" else None)
    reader, spec = recode.with_deltas(*robot, axes, reference)
    targets = []
    for source, declared in (robot, (reader, spec)):
        state = read_vector(source, 1, declared.proprio, "proprio")
        targets.append(absolute_targets(declared, state, read_vector(source, 1, declared.action, "action")))
    for name in ("position", "rotation"):
        np.testing.assert_allclose(targets[1].values[name], targets[0].values[name], atol=1e-9)


def test_joints_are_those_of_an_arm(robot: Robot) -> None:
    """Six joints within one turn, without jumps, from which the pose follows again."""
    reader, spec = recode.with_joints(*robot)
    assert [field.kind for field in spec.action.fields] == ["joint", "gripper"]
    for episode in range(3):
        joints = read_vector(reader, episode, spec.proprio, "proprio")[:, :6]
        assert np.abs(joints).max() < 2 * np.pi
        assert np.abs(np.diff(joints, axis=0)).max() < 0.5


def test_the_source_stays_as_it_is(robot: Robot, clean: dict[str, Any]) -> None:
    """Neither its files nor what its reader answers."""
    folder = Path(robot[0].root)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for fault in FAULTS:
        for strength in list(fault.strengths)[:1]:
            answers(*fault.plant(*robot, strength, 3))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert answers(*robot) == clean
