"""The words of the ablation `language:wrong`: a command for something else, never the own one in other words.

In: the own command, the environment's other one where it gives one, and the commands of the demonstrations. Out: the
command to give instead, or None where there is none.

What a command names is all of its words but those that say how (take, put) or nothing (the, on), with words for one
thing read as one. Another command names something else if each has a name that the other lacks: "place the red cube on
the white plate" is "put ..." again, and "pick up the cube" may well mean the red one. Words that are not known here
count as names.
"""

import re
from collections.abc import Iterable, Sequence

from xvla_platform.errors import XvlaError

CONDITION = "language:wrong"
SAYS_NOTHING = "a an the this that these those of on onto in into inside to at from with and please it its"
SAYS_HOW = (
    "pick picks lift lifts grab grabs grasp grasps take takes get gets hold holds raise raises fetch put puts place "
    "places move moves set sets bring brings drop drops lay lays stack stacks carry carries"
)
NO_NAMES = frozenset(SAYS_NOTHING.split() + SAYS_HOW.split())
UP_OR_DOWN = re.compile(r"\b(pick|lift|take|raise|hold|grab|put|set|lay|place)s? (up|down)\b")
ON_TOP = re.compile(r"\bon top of\b")
SAME_THING = {"block": "cube", "cup": "mug", "blocks": "cubes", "cups": "mugs"}


def names_in(command: str) -> list[str]:
    """The words that say which thing, and where, in order; `["red", "cube"]` of "grab the red block"."""
    plain = ON_TOP.sub("on", UP_OR_DOWN.sub(r"\1", " ".join(re.findall(r"\w+", command.lower()))))
    return [SAME_THING.get(word, word) for word in plain.split() if word not in NO_NAMES]


def names_something_else(own: str, other: str) -> bool:
    """Whether each command names what the other does not."""
    mine, theirs = set(names_in(own)), set(names_in(other))
    return bool(mine - theirs) and bool(theirs - mine)


def wrong_command(own: str, commands: Iterable[str]) -> str | None:
    """Of the commands that name something else the nearest: fewest other words, then the earliest, so the object's.

    That the thing lies in the scene is not known from a command; the environment's own `other_instruction` says it.
    """
    others = [text for text in commands if names_something_else(own, text)]
    return min(others, key=lambda text: (*_distance(own, text), text), default=None)


def without_another(owns: Iterable[str], commands: Sequence[str]) -> str | None:
    """The first of these commands that no other one can stand in for."""
    return next((own for own in dict.fromkeys(owns) if wrong_command(own, commands) is None), None)


def wrong_words(own: str, in_scene: str | None, commands: Iterable[str]) -> str:
    """The command to give instead of `own`.

    Args:
        in_scene: The environment's command for something else in this scene; it is taken where there is one.
        commands: Those of the demonstrations.
    """
    if in_scene is not None:
        if names_in(own) == names_in(in_scene):
            raise XvlaError(
                "asks for the same as the instruction", field="info['other_instruction']", found=in_scene, allowed=own
            )
        return in_scene
    found = wrong_command(own, commands)
    if found is None:
        raise XvlaError(
            f"there is no other command to give for `{own}`",
            field="ablate",
            found=CONDITION,
            hint="let the environment's reset say info['other_instruction'], or leave it out",
        )
    return found


def _distance(own: str, other: str) -> tuple[int, int]:
    """How many words are not in the same place in both, and the place of the first."""
    a, b = (re.findall(r"\w+", text.lower()) for text in (own, other))
    apart = [place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y]
    return len(apart) + 2 * abs(len(a) - len(b)), apart[0] if apart else min(len(a), len(b))
