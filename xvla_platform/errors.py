"""The one base error. Whatever a user can cause is an `XvlaError`; the CLI prints it on one line and exits 2.

Anything else is a bug and keeps its traceback.
"""

from collections.abc import Iterable
from pathlib import Path


class XvlaError(Exception):
    """A mistake the user can mend: what is wrong, where, what was found, what is allowed, what to do.

    Args:
        message: What is wrong, in one clause.
        file: The file or folder concerned.
        field: The dotted field inside that file (``cameras[0].role``).
        found: The offending value.
        allowed: What would have been accepted: a sentence, or the list of names that exist.
        hint: What to do next, as an imperative clause.
    """

    exit_code = 2

    def __init__(
        self,
        message: str,
        *,
        file: str | Path | None = None,
        field: str | None = None,
        found: object = None,
        allowed: str | Iterable[object] | None = None,
        hint: str | None = None,
    ) -> None:
        self.message = message
        # No folder has a name this long; where one is asked for, its beginning says which it is.
        self.file = None if file is None else _short(str(file), 1000)
        self.field = field
        self.found = found
        self.allowed = allowed if allowed is None or isinstance(allowed, str) else _listing(allowed)
        self.hint = hint
        super().__init__(self._line())

    def _line(self) -> str:
        where = ": ".join(part for part in (self.file, self.field) if part)
        line = f"{where}: {self.message}" if where else self.message
        if self.found is not None:
            line += f"; found {_short(self.found)}"
        if self.allowed is not None:
            line += f"; allowed: {self.allowed}"
        if self.hint:
            line += f". {self.hint[:1].upper()}{self.hint[1:]}"
        return " ".join(line.split())

    def as_dict(self) -> dict[str, object]:
        """The same message for `--json`."""
        parts = {
            "error": self.message,
            "file": self.file,
            "field": self.field,
            "found": None if self.found is None else _short(self.found),
            "allowed": self.allowed,
            "hint": self.hint,
        }
        return {key: value for key, value in parts.items() if value is not None}


class RefusedError(XvlaError):
    """The request was understood and well formed, but the result is not good enough to be kept (exit 1)."""

    exit_code = 1


def _listing(names: Iterable[object]) -> str:
    return ", ".join(str(name) for name in names) or "none exist"


def _short(value: object, limit: int = 160) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
