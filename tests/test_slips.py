"""Episodes that begin as after a slip: something has gone wrong, and the expert makes it good."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

# Not importorskip: MuJoCo picks its OpenGL backend when imported, and the package chooses a headless one first.
if importlib.util.find_spec("robosuite") is None:
    pytest.skip("needs the [sim] extra", allow_module_level=True)

from xvla_platform.errors import XvlaError
from xvla_platform.sim.environment import TableEnvironment
from xvla_platform.sim.episodes import record_layout
from xvla_platform.sim.recording import record_demonstrations
from xvla_platform.sim.scene import PLATE_RADIUS, sample_layout
from xvla_platform.sim.slips import MISSED, draw_slip, slip
from xvla_platform.sim.tasks import TASKS

PLUGINS = Path(__file__).parents[1] / "plugins"

pytestmark = pytest.mark.sim


@pytest.mark.parametrize("task", ["pick", "place", "stack"])
def test_something_has_gone_wrong(table: TableEnvironment, task: str) -> None:
    """Shut on nothing near the table, or open over a cube that lies just beside its place; never done already."""
    shut = missed = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        layout = sample_layout(rng, table.setup.sim.min_separation)
        found = draw_slip(table, rng, layout, table.sample_arms(rng), TASKS[task], cube=seed % 3)
        assert found is not None
        table.place(found.layout, found.angles, TASKS[task], found.goal, "")
        slip(table, found)
        ((_, arm),) = table.arms.items()
        assert not table.status()["success"]
        if found.lower_to is None:
            missed += 1
            destination = TASKS[task].destination(table.state(), found.goal)
            assert destination is not None
            off = np.linalg.norm(table.cube_pose(found.goal.cube)[0][:2] - destination[:2])
            assert PLATE_RADIUS < MISSED[0] - 1e-3 < off < MISSED[1] + 1e-3
            assert arm.opening() > 0.9
        else:
            shut += 1
            assert arm.opening() < 0.1
            assert not table.state().touched.all()
    assert shut > 0
    assert (missed > 0) == (task != "pick")


def test_the_expert_makes_it_good_and_other_scenes_stay(table: TableEnvironment) -> None:
    """Every scene begins with a slip at share 1 and none at share 0; each episode ends with its task done."""
    slipped = record_layout(table, 4, per_scene=1, task="pick", slips=1.0)
    plain = record_layout(table, 4, per_scene=1, task="pick")
    again = record_layout(table, 4, per_scene=1, task="pick", slips=0.0)
    assert len(slipped.episodes) == len(plain.episodes) == 1
    assert np.array_equal(plain.episodes[0].states, again.episodes[0].states)
    # The last number is the gripper's, 1 is open: the first command after a slip is to open it.
    assert slipped.episodes[0].states[0, -1] < 0.1 < 0.9 < slipped.episodes[0].actions[0, -1]
    assert plain.episodes[0].states[0, -1] > 0.9


def test_a_share_is_a_share() -> None:
    with pytest.raises(XvlaError, match="slips: out of range; found 30"):
        record_demonstrations(PLUGINS / "my_arm", episodes=1, slips=30)
