"""Put the named cube on the named plate."""

from __future__ import annotations

import numpy as np

from xvla_platform.sim.frames import Array
from xvla_platform.sim.scene import PLATE_RADIUS, Layout
from xvla_platform.sim.tasks.base import Goal, TableState, way_covered

SENTENCES = (
    "put the {colour} cube on the {plate} plate",
    "place the {colour} cube on the {plate} plate",
    "move the {colour} block to the {plate} plate",
)


class Place:
    """Done when the named cube lies still on the named plate, its centre within the rim, and the gripper let go."""

    name = "place"

    def goals(self, layout: Layout) -> tuple[Goal, ...]:
        return tuple(Goal(i, j) for i in range(len(layout.colours)) for j in range(len(layout.plates)))

    def instructions(self, layout: Layout, goal: Goal) -> tuple[str, ...]:
        assert goal.place is not None
        names = {"colour": layout.colours[goal.cube], "plate": layout.plate_colours[goal.place]}
        return tuple(sentence.format(**names) for sentence in SENTENCES)

    def destination(self, state: TableState, goal: Goal) -> Array | None:
        return state.layout.plates[goal.place]

    def success(self, state: TableState, goal: Goal) -> bool:
        off = np.linalg.norm(state.cubes[goal.cube][:2] - state.layout.plates[goal.place][:2])
        return bool(off < PLATE_RADIUS) and state.on_table(goal.cube) and state.let_go(goal.cube)

    def progress(self, state: TableState, goal: Goal) -> float:
        return 1.0 if self.success(state, goal) else way_covered(state, goal, state.layout.plates[goal.place])
