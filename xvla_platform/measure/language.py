"""Instructions that tell a robot nothing: missing, all the same, or left over from a template."""

import re
from collections.abc import Sequence

PLACEHOLDERS = re.compile(
    r"^(todo|tbd|none|null|nan|n/?a|test(ing)?|task|task[ _-]?\d*|instruction|description|dummy|placeholder|default|"
    r"unknown|untitled|no[ _]?(task|instruction|description)|example|sample|episode[ _-]?\d*|demo[ _-]?\d*|"
    r"lorem ipsum.*|your (task|instruction).*|enter .*|<.*>|\{.*\}|\[.*\]|x+|-+|\.+|\?+|\d+)$",
    re.IGNORECASE,
)


def missing(instructions: Sequence[str]) -> list[int]:
    """Places of empty instructions."""
    return [place for place, text in enumerate(instructions) if not text.strip()]


def placeholders(instructions: Sequence[str]) -> dict[str, list[int]]:
    """Template words to the places where they stand for an instruction."""
    found: dict[str, list[int]] = {}
    for place, text in enumerate(instructions):
        word = " ".join(text.split())
        if word and (PLACEHOLDERS.match(word) or not re.search(r"\w", word)):
            found.setdefault(word, []).append(place)
    return found


def counts(instructions: Sequence[str]) -> dict[str, int]:
    """Instruction, without regard to spaces and case, to how many episodes have it; most frequent first."""
    found: dict[str, int] = {}
    for text in instructions:
        word = " ".join(text.lower().split())
        if word:
            found[word] = found.get(word, 0) + 1
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))
