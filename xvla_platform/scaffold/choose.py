"""Which columns make up the robot's state and its action, where a dataset keeps more of them than one model reads.

In: the columns with their segments. Out: the chosen columns with the part each segment plays, and what was passed
over. End-effector poses are preferred to joints (X-VLA's pretrained bases predict poses), one arm has one position,
one rotation and one gripper, and what shares a column with a chosen part without being needed is `ignored`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from xvla_platform.scaffold.names import Segment
from xvla_platform.scaffold.table import Column

POSE = ("position", "rotation")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The columns of one vector, each with its segments in order; `passed` are columns that would have served too."""

    columns: tuple[tuple[Column, tuple[Segment, ...]], ...]
    family: str  # pose, joint or unknown
    passed: tuple[str, ...] = ()


def choose(columns: Sequence[Column], family: str | None = None) -> Choice | None:
    """The columns of the vector; `family` (`pose` or `joint`) is what the other vector is made of, if that is known."""
    if not columns:
        return None
    usable = [column for column in columns if column.segments]
    families = [name for name in ("pose", "joint") if _serves(usable, name)]
    if not families:
        whole = next((column for column in columns if column.main), None) or _likeliest(columns)
        if whole is None:
            return None
        unknown = Segment(
            start=0,
            size=whole.width,
            kind=None,
            confidence=0.0,
            evidence="neither names nor numbers tell; write one entry for each part (position, gripper, ...), "
            f"in their order, with sizes that add up to {whole.width}",
        )
        return Choice(columns=((whole, whole.segments or (unknown,)),), family="unknown")
    name = family if family in families else families[0]
    picked = _pick(usable, name)
    chosen = _partition(picked, usable)
    used = {column.key for column, _ in chosen}
    passed = tuple(
        column.key
        for column in usable
        if column.key not in used and any(part.kind in (*POSE, "joint") for part in column.segments or ())
    )
    return Choice(columns=chosen, family=name, passed=passed)


def _likeliest(columns: Sequence[Column]) -> Column | None:
    moving = [column for column in columns if not column.segments]
    return max(moving, key=lambda column: min(column.width, 32), default=None)


def _serves(columns: Sequence[Column], family: str) -> bool:
    kinds = {part.kind for column in columns for part in column.segments or ()}
    return "position" in kinds if family == "pose" else "joint" in kinds


def _pick(columns: Sequence[Column], family: str) -> list[tuple[Column, Segment]]:
    """The segments that serve, the best of each kind and arm."""
    offered = [(column, part) for column in columns for part in column.segments or ()]
    sides = {part.arm for _, part in offered if part.arm is not None}
    arms: list[str | None] = ["left", "right"] if sides == {"left", "right"} else [None]
    kinds = (*POSE, "gripper") if family == "pose" else ("joint", "gripper")
    picked: list[tuple[Column, Segment]] = []
    for arm in arms:
        home: Column | None = None
        for kind in kinds:
            fitting = [
                (column, part) for column, part in offered if part.kind == kind and (arm is None or part.arm == arm)
            ]
            if not fitting:
                continue
            # A whole vector in its own column first, then the company of what is chosen already, then certainty.
            best = max(
                fitting,
                key=lambda pair: (
                    pair[0].stated,
                    pair[0].main,
                    home is not None and pair[0].key == home.key,
                    pair[1].confidence,
                ),
            )
            home = home or best[0]
            picked.append((best[0], replace(best[1], arm=arm or "left")))
    return picked


def _partition(
    picked: Sequence[tuple[Column, Segment]], columns: Sequence[Column]
) -> tuple[tuple[Column, tuple[Segment, ...]], ...]:
    out = []
    for key in dict.fromkeys(column.key for column, _ in picked):
        column = next(column for column in columns if column.key == key)
        taken = {part.start: part for owner, part in picked if owner.key == key}
        parts = [taken.get(part.start, _left_out(part)) for part in column.segments or ()]
        out.append((column, tuple(parts)))
    return tuple(out)


def _left_out(part: Segment) -> Segment:
    if part.kind in (None, "ignored"):
        return part
    reason = f"{part.evidence}; not needed beside the fields above"
    return replace(part, kind="ignored", facts={}, confidence=min(part.confidence, 0.8), evidence=reason)
