"""One field in the making: the part of a column it takes, its numbers, and what is known of it so far."""

from dataclasses import dataclass, field

from xvla_platform.data.reader import FloatArray
from xvla_platform.measure.guess import Guess
from xvla_platform.scaffold.names import Segment
from xvla_platform.scaffold.table import Column


@dataclass(kw_only=True)
class Part:
    """`episodes` are the field's numbers [L, size] of each sampled episode, `facts` its entries by name."""

    column: Column
    segment: Segment
    name: str
    arm: str
    episodes: list[FloatArray]
    facts: dict[str, Guess] = field(default_factory=dict)

    @property
    def kind(self) -> str | None:
        return self.segment.kind
