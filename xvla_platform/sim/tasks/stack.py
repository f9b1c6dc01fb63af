"""Stack the named cube on the other named one."""

from __future__ import annotations

import numpy as np

from xvla_platform.sim.frames import Array
from xvla_platform.sim.scene import HALF_EDGE, Layout
from xvla_platform.sim.tasks.base import Goal, TableState, way_covered

SENTENCES = (
    "stack the {colour} cube on the {other} cube",
    "put the {colour} cube on top of the {other} cube",
    "stack the {colour} block on the {other} block",
)


class Stack:
    """Done when the named cube lies still on the other one, which lies on the table, and the gripper let go."""

    name = "stack"

    def goals(self, layout: Layout) -> tuple[Goal, ...]:
        cubes = range(len(layout.colours))
        return tuple(Goal(i, j) for i in cubes for j in cubes if i != j)

    def instructions(self, layout: Layout, goal: Goal) -> tuple[str, ...]:
        assert goal.place is not None
        names = {"colour": layout.colours[goal.cube], "other": layout.colours[goal.place]}
        return tuple(sentence.format(**names) for sentence in SENTENCES)

    def destination(self, state: TableState, goal: Goal) -> Array | None:
        assert goal.place is not None
        return state.cubes[goal.place] + np.array([0.0, 0.0, 2 * HALF_EDGE])

    def success(self, state: TableState, goal: Goal) -> bool:
        assert goal.place is not None
        gap = state.cubes[goal.cube] - state.cubes[goal.place]
        above = abs(gap[2] - 2 * HALF_EDGE) < 0.006 and np.linalg.norm(gap[:2]) < 1.4 * HALF_EDGE
        return bool(above) and state.on_table(goal.place) and state.let_go(goal.cube)

    def progress(self, state: TableState, goal: Goal) -> float:
        destination = self.destination(state, goal)
        assert destination is not None
        return 1.0 if self.success(state, goal) else way_covered(state, goal, destination)
