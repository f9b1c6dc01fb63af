"""A click group whose subcommands are imported when they are run, not when they are listed.

In: a table of name to `module:attribute` and one line of help. Out: a `click.Group`; commands that plugins
add through `register_commands` join it when the listing is asked for, or when a name is in no table.
"""

import difflib
import importlib
from typing import NamedTuple

import click


class LazyCommand(NamedTuple):
    """Where a command lives, and its line in `xvla --help`."""

    target: str
    help: str


class LazyGroup(click.Group):
    """`table` is the built-in commands in the order of a user's work."""

    def __init__(self, *args: object, table: dict[str, LazyCommand], **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.table = table
        self._contributed = False

    def list_commands(self, context: click.Context) -> list[str]:
        self._contribute()
        return [*self.table, *sorted(set(self.commands) - set(self.table))]

    def get_command(self, context: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.table and cmd_name not in self.commands:
            module, _, attribute = self.table[cmd_name].target.partition(":")
            self.commands[cmd_name] = getattr(importlib.import_module(module), attribute)
        if cmd_name not in self.commands:
            self._contribute()
        return self.commands.get(cmd_name)

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(context, args)
        except click.UsageError as error:
            names = self.list_commands(context)
            near = difflib.get_close_matches(args[0], names, n=2)
            meant = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}"
            raise click.UsageError(f"no such command: {args[0]}; {meant}", ctx=error.ctx or context) from None

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, self._help_line(name)) for name in self.list_commands(context)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _help_line(self, name: str) -> str:
        if name in self.table:
            return self.table[name].help
        return self.commands[name].get_short_help_str(90)

    def _contribute(self) -> None:
        """Let plugins add their commands, once."""
        if self._contributed:
            return
        self._contributed = True
        from xvla_platform.platform.commands import contribute_commands

        contribute_commands(self)
