"""What a plugin's parts promise, by code, and the error that says which promise one of them breaks.

In: a code of `PROMISES` and what was seen. Out: a `NotConformantError`, which pytest shows as a failure and any
other caller as one line.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xvla_platform.errors import XvlaError

PROMISES: dict[str, str] = {
    "KIT101": "the declaration loads, and nothing in it is still blank",
    "KIT102": "the folder is called as the robot is, so that the command line finds it by that name",
    "KIT103": "README.md says what the robot is",
    "KIT104": "the declared vectors fit an action space of X-VLA",
    "KIT105": "numbers that the declaration allows become model vectors of finite numbers, zero where nothing is meant",
    "KIT106": "what the model would be trained with comes back as the recorded action",
    "KIT107": "plugin.py imports, and its functions are hooks that exist",
    "KIT108": "the data holds what is declared",
    "KIT201": "the place opens, and is recognised as its format while an empty folder is not",
    "KIT202": "`info` counts the episodes and frames that there are",
    "KIT203": "an episode's index is its place, its length is positive, its instruction is text",
    "KIT204": "`columns` gives float64 [L, D] of the declared width for each key asked for, and no other",
    "KIT205": "`timestamps` gives float64 [L] that starts at zero and rises, or is NaN throughout",
    "KIT206": "`frames` gives RGB uint8 [N, H, W, 3] of the declared size",
    "KIT207": "frames come in the order asked, and repeated where asked twice",
    "KIT208": "random access gives the same as reading in order",
    "KIT209": "an answer belongs to the caller: changing it changes no later answer",
    "KIT210": "`fingerprint` is 64 hex digits, the same whenever the same files are opened",
    "KIT211": "a reader survives pickling, so that worker processes can have it",
    "KIT212": "a key, camera, episode or frame that does not exist is an XvlaError",
    "KIT213": "reading changes no file",
    "KIT301": "push answers with a receipt that says where the adaptation lies",
    "KIT302": "what is pulled is what was pushed, byte for byte",
    "KIT303": "pushing the same again sends nothing and says so",
    "KIT304": "another adaptation of the same number takes nothing from the first, which its revision still gives",
    "KIT305": "a place or a revision that does not exist is an XvlaError, and nothing is written",
    "KIT306": "push changes nothing in the folder it shares",
    "KIT401": "the plan is an AdaptationPlan that survives being written and read",
    "KIT402": "the plan is the same whenever it is asked for",
    "KIT403": "the first stage trains the robot's own slot",
    "KIT501": "the environment is made, is gymnasium's, and has the robot's rate and action",
    "KIT502": "its spaces are those of the declaration",
    "KIT503": "every task begins and goes on with observations and info as the contract has them",
    "KIT504": "the clock rises with every step, with and without images",
    "KIT505": "equal seeds give equal episodes, whatever ran before",
    "KIT506": "other seeds give other episodes",
    "KIT507": "it closes, also after it was used",
}


class NotConformantError(XvlaError):
    """A part of a plugin breaks one of `PROMISES`.

    Attributes:
        code: Which one.
    """

    def __init__(self, code: str, seen: str, file: str | Path | None = None) -> None:
        super().__init__(f"{code}: {PROMISES[code]}; seen: {seen}", file=file)
        self.code = code


def require(code: str, kept: Any, seen: str, file: str | Path | None = None) -> None:
    """Raise for the promise `code` unless it is kept."""
    if not kept:
        raise NotConformantError(code, seen, file)


@contextmanager
def promised(code: str, file: str | Path | None = None) -> Iterator[None]:
    """What fails inside breaks the promise `code`; a bug's traceback stays reachable as its cause."""
    try:
        yield
    except NotConformantError:
        raise
    except Exception as error:
        raise NotConformantError(code, f"{type(error).__name__}: {error}", file) from error


def require_refusal(code: str, what: str, call: Callable[[], Any], file: str | Path | None = None) -> None:
    """`call` must end in an `XvlaError` of one line."""
    try:
        call()
    except XvlaError as error:
        require(code, "\n" not in str(error), f"{what}: the error has several lines", file)
        return
    except Exception as error:
        raise NotConformantError(code, f"{what}: {type(error).__name__}: {error}", file) from error
    raise NotConformantError(code, f"{what}: no error", file)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by relative path."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
