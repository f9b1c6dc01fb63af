"""Drawn camera rigs: other places, the same table in view, the same rig for the same number."""

from pathlib import Path

import numpy as np
import pytest

from xvla_platform.sim.rigs import with_rig
from xvla_platform.sim.scene import HALF_REGION, TABLE_HEIGHT
from xvla_platform.sim.setup import camera_back, load_setup

PLUGINS = Path(__file__).parents[1] / "plugins"
RIGS = range(1, 25)


@pytest.mark.parametrize("robot", ["panda", "sawyer", "iiwa", "kinova3", "jaco", "xarm7"])
def test_every_rig_shows_the_whole_table_from_above(robot: str) -> None:
    """Each corner of the square on which cubes are put lies within the main view, and the hand's camera looks down."""
    setup = load_setup(PLUGINS / robot)
    corners = [np.array([x, y, TABLE_HEIGHT]) for x in (-HALF_REGION, HALF_REGION) for y in (-HALF_REGION, HALF_REGION)]
    for rig in RIGS:
        cameras = with_rig(setup, rig).sim.cameras
        seen = np.array([cameras["front"].project(corner, (128, 128)) for corner in corners])
        assert seen.min() > 0
        assert seen.max() < 1
        assert camera_back(cameras["wrist"])[2] < -0.5


def test_rigs_differ_and_return() -> None:
    """What a number draws depends on the robot's own cameras and on the number, and on nothing else."""
    setup = load_setup(PLUGINS / "panda")
    assert with_rig(setup, 0) is setup
    drawn = [with_rig(setup, rig).sim.cameras for rig in RIGS]
    assert drawn == [with_rig(setup, rig).sim.cameras for rig in RIGS]
    views = np.array([camera_back(cameras["front"]) for cameras in drawn])
    apart = np.arccos(np.clip(views @ views.T, -1, 1))[np.triu_indices(len(views), 1)]
    assert apart.min() > 0
    assert np.median(apart) > np.deg2rad(15)
    assert all(cameras["front"].mount == "world" and cameras["wrist"].mount == "tool" for cameras in drawn)
