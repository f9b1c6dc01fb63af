"""What commands print: lines for people, one JSON object for programs, and how each command ends.

In: values. Out: stdout. With `--json` nothing but the final object is printed there.
"""

import json
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


def common_options(function: Function) -> Function:
    """`--workspace` and `--json`, which every command has."""
    json_option = click.option(
        "--json",
        "as_json",
        is_flag=True,
        expose_value=False,
        callback=_set_json,
        help="Print one JSON object.",
    )
    workspace_option = click.option(
        "--workspace",
        type=click.Path(path_type=Path, file_okay=False),
        help="Workspace folder; else XVLA_WORKSPACE, else the nearest folder above with xvla.yaml.",
    )
    return workspace_option(json_option(function))


def json_wanted() -> bool:
    """Whether the running command was given `--json`."""
    context = click.get_current_context(silent=True)
    return bool(context and context.find_root().meta.get("xvla.json"))


def same_command(*, without: str) -> str:
    """The running command as it was typed, all its options included, but for one flag."""
    root = click.get_current_context().find_root()
    return shlex.join(["xvla", *(word for word in root.obj or () if word != without)])


def say(*parts: object) -> None:
    """Print one line, unless `--json` was given."""
    if not json_wanted():
        click.echo(" ".join(str(part) for part in parts))


def emit_json(value: dict[str, Any]) -> None:
    """Print the command's JSON object."""
    click.echo(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=str))


def done(
    *,
    wrote: str | Path | Sequence[str | Path] = (),
    next_command: str | None = None,
    data: dict[str, Any] | None = None,
) -> None:
    """End a command: what it wrote, the next command, and with `--json` all of it as one object."""
    paths = [str(wrote)] if isinstance(wrote, (str, Path)) else [str(path) for path in wrote]
    if json_wanted():
        emit_json({**(data or {}), "wrote": paths, "next": next_command})
        return
    for path in paths:
        click.echo(f"wrote {path}")
    if next_command:
        click.echo(f"next: {next_command}")


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print aligned columns, unless `--json` was given; numbers are set to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    numeric = [all(_is_number(row[i]) for row in cells) for i in range(len(headers))]
    widths = [max([len(header), *(len(row[i]) for row in cells)]) for i, header in enumerate(headers)]
    for row in [list(headers), ["-" * width for width in widths], *cells]:
        padded = (
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, numeric, strict=True)
        )
        say("  ".join(padded).rstrip())


def size_text(size: int) -> str:
    """`0.51 MB` for a number of bytes."""
    return f"{size / 1e6:.2f} MB" if size >= 1e4 else f"{size} B"


def _set_json(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        context.find_root().meta["xvla.json"] = True


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_number(text: str) -> bool:
    return text == "-" or text.replace(".", "", 1).replace("-", "", 1).replace("e", "", 1).isdigit()
