"""A draft as files: `plugin.yaml`, where each inferred line says how sure it is and why, and a README.

In: a draft and where it came from. Out: two texts. A sure value carries its evidence, a likely one `check:`, and an
unknown one is the blank `???` with the question, the best guess and what may be answered.
"""

import re
from collections.abc import Sequence
from typing import Any

import yaml

from xvla_platform.measure.guess import Guess
from xvla_platform.scaffold.draft import Draft, decided, leaves, resolve, state_of
from xvla_platform.specs.blanks import BLANK, QUESTIONS, Place, allowed_values, dotted, find_blanks, shown
from xvla_platform.specs.embodiment import EmbodimentSpec

COMMENT_COLUMN = 34
LONGEST_EVIDENCE = 260

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff\ufffe\uffff]+")

HEADER = """\
# The declaration of {name}, written by `xvla new-plugin` from {source}.
# Each inferred line says how sure it is (0 to 1) and what it was seen in.
#   `check:`   likely; look at it, then delete the comment
#   `{blank}`      unknown; nothing loads before you have answered it
# Then: xvla check plugins/{name}
"""


def plugin_text(draft: Draft, *, source: str, notes: Sequence[str] = ()) -> str:
    """`plugin.yaml` of the draft; `notes` are remarks about the dataset as a whole."""
    lines = [HEADER.format(name=draft["name"], source=_one_line(source), blank=BLANK).rstrip()]
    lines += [f"# Note: {_one_line(note)}" for note in notes]
    plain = resolve(draft)
    for key, value in draft.items():
        lines += _lines(key, value, (key,), 0, plain)
    return "\n".join(lines) + "\n"


def readme_text(draft: Draft, *, source: str, notes: Sequence[str] = ()) -> str:
    """A page for the plugin's folder: what it is, what is open, what to do next."""
    plain = resolve(draft)
    blanks = [dotted(place) for place in find_blanks(plain)]
    checks = [dotted(place) for place, guess in leaves(draft) if state_of(guess) == "check"]
    description = _one_line(plain["description"]) if plain["description"] != BLANK else "A robot."
    lines = [f"# {draft['name']}", "", f"{description}", "", f"`plugin.yaml` was written from {_one_line(source)}.", ""]
    if blanks:
        lines += ["Left blank, because the recording does not tell:", "", *(f"- `{field}`" for field in blanks), ""]
    if checks:
        lines += ["Likely, and to be checked:", "", *(f"- `{field}`" for field in checks), ""]
    if notes:
        lines += ["About the dataset:", "", *(f"- {_one_line(note)}" for note in notes), ""]
    lines += [
        "```bash",
        f"xvla check plugins/{draft['name']}",
        f"xvla add-embodiment plugins/{draft['name']}",
        "```",
    ]
    return "\n".join(lines) + "\n"


def remark(guess: Guess, place: Place, plain: Any) -> str:
    """The comment behind an inferred value."""
    evidence, state = _one_line(guess.evidence), state_of(guess)
    if state == "sure":
        return f"{guess.confidence:.2f} {evidence}"
    if state == "check":
        return f"check: {guess.confidence:.2f} {evidence}"
    parts = [QUESTIONS.get(str(place[-1]), "what belongs here") + "?"]
    if guess.value is not None and guess.confidence > 0:
        parts.append(f"best guess {_scalar(guess.value)} ({guess.confidence:.2f})")
    parts.append(evidence)
    allowed = shown(allowed_values(EmbodimentSpec, plain, place))
    if allowed:
        parts.append(f"allowed: {allowed}")
    return "; ".join(parts).replace("?;", "?")


def _lines(key: str, value: Any, place: Place, depth: int, plain: Any) -> list[str]:
    indent = "  " * depth
    if isinstance(value, dict):
        out = [f"{indent}{key}:"]
        for name, part in value.items():
            out += _lines(str(name), part, (*place, name), depth + 1, plain)
        return out
    if isinstance(value, list) and value and isinstance(value[0], dict):
        out = [f"{indent}{key}:"]
        for number, part in enumerate(value):
            block: list[str] = []
            for name, inner in part.items():
                block += _lines(str(name), inner, (*place, number, name), depth + 2, plain)
            block[0] = f"{indent}  - {block[0].lstrip()}"
            out += block
        return out
    text = f"{indent}{key}: {_scalar(decided(value))}"
    if not isinstance(value, Guess):
        return [text]
    return [f"{text.ljust(COMMENT_COLUMN)}  # {remark(value, place, plain)}"]


def _scalar(value: Any) -> str:
    """One value on one line, quoted where YAML would read it as something else."""
    if value == BLANK:
        return BLANK
    if isinstance(value, float):
        return repr(int(value)) + ".0" if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, str) and UNPRINTABLE.search(value):
        return yaml.safe_dump(value, default_style='"', allow_unicode=False, width=10**9).strip()
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**9).strip()
    return text.removesuffix("...").strip()


def _one_line(text: str) -> str:
    # A line break or a control character from a dataset's names must not end the comment it stands in.
    text = " ".join(UNPRINTABLE.sub(" ", text).split())
    return text if len(text) <= LONGEST_EVIDENCE else text[: LONGEST_EVIDENCE - 1] + "…"
