"""The simulated robots as gymnasium environments, for `xvla eval --closed-loop` (see `closed_loop/contract.py`).

Observations and actions are those of the robot's dataset; an image is rendered only when somebody will look at it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from xvla_platform.closed_loop.contract import spaces_of
from xvla_platform.errors import XvlaError
from xvla_platform.platform.hookspecs import EnvironmentRequest
from xvla_platform.sim.environment import TableEnvironment
from xvla_platform.sim.setup import load_setup
from xvla_platform.sim.tasks import TASKS

TIME_LIMITS_S = {"pick": 10.0}  # a policy may take longer than the scripted expert
LONGEST_S = 15.0


class TableGymnasium(gymnasium.Env[dict[str, Any], NDArray[np.float64]]):
    """One simulated robot at its table.

    Attributes:
        images_wanted: Whether the next observation is to have images.
    """

    metadata = {"tasks": tuple(TASKS), "time_limit_s": LONGEST_S}  # noqa: RUF012

    def __init__(self, table: TableEnvironment) -> None:
        self.table = table
        self.observation_space, self.action_space = spaces_of(table.setup.spec)
        self.images_wanted = True
        self._limit = LONGEST_S

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Draw a scene and an instruction of `options["task"]` from the seed."""
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(2**31)) if seed is None else seed
        task = (options or {}).get("task", next(iter(TASKS)))
        self.table.reset(drawn, task)
        self._limit = TIME_LIMITS_S.get(task, LONGEST_S)
        return self._observe(), {"other_instruction": self._other_instruction()}

    def step(self, action: NDArray[np.float64]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One control period under a row of the dataset's action vector."""
        self.table.step(np.asarray(action, dtype=np.float64))
        status = self.table.status()
        info = {name: status[name] for name in ("success", "approached", "seconds")}
        late = status["seconds"] >= self._limit or self.table.unstable
        return self._observe(), float(status["success"]), status["success"], late and not status["success"], info

    def close(self) -> None:
        """Free the renderers."""
        self.table.close()

    def _observe(self) -> dict[str, Any]:
        seen = {"state": self.table.proprio().astype(np.float64), "instruction": self.table.instruction}
        if self.images_wanted:
            seen["images"] = self.table.render()
        return seen

    def _other_instruction(self) -> str:
        """The same sentence about another cube, at the same place where there is one."""
        table = self.table
        assert table.layout is not None
        goals = [goal for goal in table.task.goals(table.layout) if goal.cube != table.goal.cube]
        other = min(goals, key=lambda goal: (goal.place != table.goal.place, goal.cube))
        sentence = table.task.instructions(table.layout, table.goal).index(table.instruction)
        return table.task.instructions(table.layout, other)[sentence]


def make(request: EnvironmentRequest) -> TableGymnasium:
    """The simulated robot of a plugin folder with `sim.yaml`, in the convention of the request's declaration."""
    if request.options:
        raise XvlaError("the simulator has no options", field="env-option", found=sorted(request.options))
    setup = load_setup(request.plugin_folder)
    return TableGymnasium(TableEnvironment(replace(setup, spec=request.spec)))
