"""A measured answer to one question about a recording, with how sure it is and what it was seen in."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Guess:
    """One answer.

    Attributes:
        value: The answer, in the words of `plugin.yaml`; None where the recording does not tell.
        confidence: 0 (nothing is known) to 1. From `SURE` on, it may be written into a plugin unasked and may
            be an error when a declaration says otherwise; from `LIKELY` on, it is proposed or warned of.
        evidence: One sentence with the measured numbers and their units.
        numbers: The measured numbers, for `--json` and plots.
    """

    value: Any
    confidence: float
    evidence: str
    numbers: dict[str, Any] = field(default_factory=dict)


SURE = 0.9
LIKELY = 0.6
