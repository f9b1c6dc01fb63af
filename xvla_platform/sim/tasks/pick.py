"""Pick up the named cube, and keep it up."""

from __future__ import annotations

import numpy as np

from xvla_platform.sim.frames import Array
from xvla_platform.sim.scene import Layout
from xvla_platform.sim.tasks.base import REST_HEIGHT, Goal, TableState

SENTENCES = ("pick up the {colour} cube", "lift the {colour} cube", "grab the {colour} block")
LIFTED = 0.07  # m


class Pick:
    """Done while a gripper holds the named cube at least 7 cm above the table."""

    name = "pick"

    def goals(self, layout: Layout) -> tuple[Goal, ...]:
        return tuple(Goal(i) for i in range(len(layout.colours)))

    def instructions(self, layout: Layout, goal: Goal) -> tuple[str, ...]:
        return tuple(sentence.format(colour=layout.colours[goal.cube]) for sentence in SENTENCES)

    def destination(self, state: TableState, goal: Goal) -> Array | None:
        return None

    def success(self, state: TableState, goal: Goal) -> bool:
        # A cube that was thrown up or has been dropped is touched by no gripper.
        return bool(state.touched[goal.cube]) and self._height(state, goal) >= LIFTED

    def progress(self, state: TableState, goal: Goal) -> float:
        return float(np.clip(self._height(state, goal) / LIFTED, 0.0, 1.0))

    @staticmethod
    def _height(state: TableState, goal: Goal) -> float:
        return float(state.cubes[goal.cube, 2] - REST_HEIGHT)
