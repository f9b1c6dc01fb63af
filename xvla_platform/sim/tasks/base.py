"""What a task is: goals named in words, where the named object has to go, and when that is done.

A task never looks at the simulator, only at a `TableState`, so that its predicates can be tried on any state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from xvla_platform.sim.frames import Array
from xvla_platform.sim.scene import HALF_EDGE, TABLE_HEIGHT, Layout

REST_SPEED = 0.02  # m/s; slower cubes lie still
REST_HEIGHT = TABLE_HEIGHT + HALF_EDGE  # of the centre of a cube on the table, m


@dataclass(frozen=True)
class Goal:
    """What an episode asks for: ``cube`` is the named object's index, ``place`` the named place's (task's own)."""

    cube: int
    place: int | None = None


@dataclass(frozen=True)
class TableState:
    """The table at one moment.

    ``cubes`` (3, 3) centres, m, world; ``speeds`` (3,) m/s; ``touched`` (3,) whether a gripper touches the cube;
    ``layout`` as the episode began.
    """

    cubes: Array
    speeds: Array
    touched: NDArray[np.bool_]
    layout: Layout

    def let_go(self, index: int) -> bool:
        """Does the cube lie still, touched by no gripper?"""
        return not self.touched[index] and bool(self.speeds[index] < REST_SPEED)

    def on_table(self, index: int) -> bool:
        """Does the cube lie flat on the table?"""
        return bool(abs(self.cubes[index, 2] - REST_HEIGHT) < 0.006)


class Task(Protocol):
    """One kind of instruction."""

    @property
    def name(self) -> str: ...

    def goals(self, layout: Layout) -> tuple[Goal, ...]:
        """Every goal that this scene allows."""

    def instructions(self, layout: Layout, goal: Goal) -> tuple[str, ...]:
        """Sentences that ask for it."""

    def destination(self, state: TableState, goal: Goal) -> Array | None:
        """Where the named cube's centre has to come to rest, (3,) m world; None where it is to be held up."""

    def success(self, state: TableState, goal: Goal) -> bool:
        """Is it done at this moment?"""

    def progress(self, state: TableState, goal: Goal) -> float:
        """How far it is, 0 as the episode began to 1 done."""


def way_covered(state: TableState, goal: Goal, destination: Array) -> float:
    """Share of the level way from where the cube began to its destination that it has come, 0 to 1."""
    begin = float(np.linalg.norm(state.layout.positions[goal.cube][:2] - destination[:2]))
    left = float(np.linalg.norm(state.cubes[goal.cube][:2] - destination[:2]))
    return float(np.clip(1.0 - left / max(begin, 1e-6), 0.0, 1.0))
