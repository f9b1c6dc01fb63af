"""The tasks at the table, by name. All are played in the same scenes."""

from __future__ import annotations

from xvla_platform.errors import XvlaError
from xvla_platform.sim.tasks.base import Goal, TableState, Task
from xvla_platform.sim.tasks.pick import Pick
from xvla_platform.sim.tasks.place import Place
from xvla_platform.sim.tasks.stack import Stack

__all__ = ["TASKS", "Goal", "TableState", "Task", "chosen"]

TASKS: dict[str, Task] = {task.name: task for task in (Pick(), Place(), Stack())}
ALL = "all"


def chosen(name: str) -> tuple[Task, ...]:
    """The task of this name, or every task for ``all``; XvlaError for an unknown name."""
    if name == ALL:
        return tuple(TASKS.values())
    if name not in TASKS:
        raise XvlaError("no such task", field="task", found=name, allowed=[*TASKS, ALL])
    return (TASKS[name],)
