"""What checks share: the fields they go through, and how sureness and episodes are put in words."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from xvla_platform.check.findings import CheckContext, Severity
from xvla_platform.data.canonical import to_canonical
from xvla_platform.data.reader import FloatArray
from xvla_platform.errors import XvlaError
from xvla_platform.measure.guess import LIKELY, SURE
from xvla_platform.measure.names import number_names
from xvla_platform.specs.fields import FieldSpec


@dataclass(frozen=True, kw_only=True)
class Column:
    """One declared field with its recorded numbers.

    Attributes:
        vector: `proprio` or `action`.
        episodes: [L, size] of each episode, as recorded.
    """

    vector: str
    field: FieldSpec
    episodes: list[FloatArray]

    @property
    def place(self) -> str:
        """`action.position`, as findings name it."""
        return f"{self.vector}.{self.field.name}"

    @property
    def absolute(self) -> bool:
        return getattr(self.field, "reference", "absolute") == "absolute"

    def scaled(self) -> list[FloatArray]:
        """The numbers in the declared unit, with the declared scale."""
        return [values * self.field.scale for values in self.episodes]


def columns(context: CheckContext, *kinds: str, vectors: Sequence[str] = ("proprio", "action")) -> Iterator[Column]:
    """The declared fields of these kinds (all but ignored ones without any), proprio first."""
    for vector in vectors:
        declared = context.spec.proprio if vector == "proprio" else context.spec.action
        for field in declared.fields:
            if field.kind != "ignored" and (not kinds or field.kind in kinds):
                yield Column(vector=vector, field=field, episodes=context.recording.column(vector, field.name))


def state_of(context: CheckContext, action: FieldSpec) -> Column | None:
    """The proprio field that an action field drives: of its kind, arm and size, by name if there are several."""
    states = [
        column
        for column in columns(context, action.kind, vectors=("proprio",))
        if column.field.arm == action.arm and (action.kind != "joint" or column.field.size == action.size)
    ]
    named = [column for column in states if column.field.name == action.name]
    chosen = named or states
    return chosen[0] if len(chosen) == 1 else None


def canonical(column: Column) -> list[FloatArray] | None:
    """The field's values in SI units, rotations as matrices; None where they are no rotations."""
    try:
        return [to_canonical(column.field, values) for values in column.episodes]
    except XvlaError:
        return None


def names_of(context: CheckContext, column: Column) -> tuple[str, ...] | None:
    """What the dataset calls the field's numbers, where it names each number of the column."""
    vector = context.spec.proprio if column.vector == "proprio" else context.spec.action
    for key, fields in vector.columns().items():
        if column.field not in fields:
            continue
        feature = context.reader.info.features.get(key)
        names = number_names(feature.names, sum(field.size for field in fields)) if feature else None
        if names is None:
            return None
        start = sum(field.size for field in fields[: fields.index(column.field)])
        return names[start : start + column.field.size]
    return None


def severity_of(confidence: float, most: Severity = "error") -> Severity | None:
    """An error where the measurement is sure, a warning where it is likely, else nothing."""
    if confidence >= SURE:
        return most
    return "warning" if confidence >= LIKELY else None


def in_episodes(context: CheckContext, places: Iterable[int]) -> tuple[tuple[int, ...], str]:
    """Episode indices of places in the recording, and ` in 3 of 60 episodes (1, 5, 9)`."""
    indices = tuple(context.recording.episodes[place].index for place in sorted(set(places)))
    return indices, counted(indices, len(context.recording.episodes))


def counted(indices: Sequence[int], total: int) -> str:
    """`3 of 60 episodes (1, 5, 9)`; long lists are cut."""
    shown = ", ".join(str(index) for index in indices[:6]) + (", …" if len(indices) > 6 else "")
    return f"{len(indices)} of {total} episodes ({shown})"
