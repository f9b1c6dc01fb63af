"""Which state each action drives: what the checks of actions go through.

In: a `CheckContext`. Out: pairs of an action field and the state of its kind and arm, canonical per episode.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from xvla_platform.check.common import Column, canonical, columns, state_of
from xvla_platform.check.findings import CheckContext
from xvla_platform.data.reader import FloatArray
from xvla_platform.measure.actions import fit_readings
from xvla_platform.specs.fields import ActionFieldSpec


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An action field with the state it drives, both canonical.

    Attributes:
        told: The actions of each episode, [L, 3], [L, 3, 3] or [L, n].
        was: The states of the same frames, of the same shape.
        turns: Orientations [L, 3, 3] of the hand, of a position whose arm records them; else None.
    """

    action: Column
    state: Column
    told: list[FloatArray]
    was: list[FloatArray]
    turns: list[FloatArray] | None

    @property
    def field(self) -> ActionFieldSpec:
        assert isinstance(self.action.field, ActionFieldSpec)
        return self.action.field


def pairs(context: CheckContext) -> Iterator[Pair]:
    """Action fields whose state is recorded and can be read, leaving out grippers and what never moves."""
    if not context.recording.episodes:
        return
    for action in columns(context, "position", "rotation", "joint", vectors=("action",)):
        state = state_of(context, action.field)
        if state is None:
            continue
        told, was = canonical(action), canonical(state)
        if told is None or was is None or not all(np.isfinite(part).all() for part in (*told, *was)):
            continue
        turns = None
        if action.field.kind == "position":
            for rotation in columns(context, "rotation", vectors=("proprio",)):
                if rotation.field.arm == action.field.arm:
                    turns = canonical(rotation)
        yield Pair(action=action, state=state, told=told, was=was, turns=turns)


def share_of(states: list[FloatArray], actions: list[FloatArray], kind: str) -> float:
    """Share of the actions' variance that the states explain, read as absolute; below 0 where they mislead."""
    return fit_readings(states, actions, kind)["absolute"].share
