"""The `xvla` command: one verb a capability, and one place where errors become a line and an exit code.

Exit codes: 0 done, 1 refused (the result is not good enough to keep), 2 misused or failed for a reason the
user can mend, 130 interrupted. Anything else is a bug and keeps its traceback.
"""

import errno
import json
import os
import shlex
import sys
from collections.abc import Sequence

import click

from xvla_platform import __version__
from xvla_platform.cli.lazy import LazyCommand, LazyGroup
from xvla_platform.errors import XvlaError

COMMANDS = {
    "init": LazyCommand("xvla_platform.cli.init:init", "Make a folder a workspace, with the worked example."),
    "new-plugin": LazyCommand("xvla_platform.cli.new_plugin:new_plugin", "Write a robot's plugin from its dataset."),
    "check": LazyCommand("xvla_platform.cli.check:check", "Test a robot's declaration against its data."),
    "add-embodiment": LazyCommand(
        "xvla_platform.cli.add_embodiment:add_embodiment",
        "Check a robot's plugin against its data and give it a prompt slot.",
    ),
    "adapt": LazyCommand("xvla_platform.cli.adapt:adapt", "Teach the base a registered robot."),
    "sweep": LazyCommand("xvla_platform.cli.sweep:sweep", "Adapt to a robot in many ways, and compare them."),
    "eval": LazyCommand("xvla_platform.cli.eval:evaluate", "Measure an adaptation on held-out episodes."),
    "bench": LazyCommand("xvla_platform.cli.bench:bench", "Measure steps, chunks and batches on this machine."),
    "study": LazyCommand("xvla_platform.cli.study:study", "Run a study: record, pretrain, adapt, evaluate, tabulate."),
    "list": LazyCommand("xvla_platform.cli.list:list_all", "List the workspace's robots and adaptations."),
    "show": LazyCommand("xvla_platform.cli.show:show", "Show one robot and its adaptations in full."),
    "domains": LazyCommand("xvla_platform.cli.domains:domains", "Show what the rows of a base were trained with."),
    "push": LazyCommand("xvla_platform.cli.push:push", "Share an adaptation on the Hub or in a folder."),
    "pull": LazyCommand("xvla_platform.cli.pull:pull", "Bring a shared adaptation into this workspace."),
    "pretrain": LazyCommand(
        "xvla_platform.cli.pretrain:pretrain", "Pretrain a small base on several robots' demonstrations."
    ),
}

# What a resumed command takes over from the interrupted one: option to whether a value follows; None: every word.
RESUMABLE: dict[str, dict[str, bool] | None] = {
    "adapt": {"--embodiment": True, "--workspace": True, "--json": False},
    "sweep": {"--embodiment": True, "--workspace": True, "--json": False},
    "pretrain": None,
}
# What the file system refuses for a reason that lies with a path or its owner, and not with us.
MENDABLE = {
    getattr(errno, name)
    for name in ("EACCES", "EPERM", "EROFS", "ENOTDIR", "EISDIR", "ENAMETOOLONG", "ELOOP", "EMFILE", "ENFILE")
}
REPEAT = "nothing half-written was left; run the same command again"


@click.group(cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="xvla")
def cli() -> None:
    """Teach X-VLA a new robot: declare it, adapt the shared base to it, share the result."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = cli.main(args=words, prog_name="xvla", standalone_mode=False, obj=tuple(words))
    except XvlaError as error:
        _report(str(error), error.as_dict(), words)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _report_misuse(error, words)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        hint = resume_hint(words)
        _report(f"interrupted; {hint}", {"error": "interrupted", "hint": hint}, words)
        sys.exit(130)
    except RuntimeError as error:
        if "WORLD_SIZE" not in os.environ or "timed out" not in str(error).lower():
            raise
        line = "a process of this launch waited in vain for the others; XVLA_TIMEOUT_MINUTES says how long they wait"
        _report(line, {"error": line}, words)
        sys.exit(2)
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; give the interpreter's last flush somewhere to go.
        sys.stdout = open("/dev/null", "w")  # noqa: SIM115
        sys.exit(0)
    except OSError as error:
        if error.errno is None or error.errno not in MENDABLE or error.filename is None:
            raise
        path, reason = os.fsdecode(error.filename), os.strerror(error.errno).lower()
        _report(f"{path}: {reason}", {"error": reason, "file": path}, words)
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


def resume_hint(words: Sequence[str]) -> str:
    """How to go on: the command as it was typed, with --resume where that exists."""
    if not words or words[0] not in RESUMABLE or "--dry-run" in words:
        return REPEAT
    options, kept = RESUMABLE[words[0]], [words[0]]
    rest = iter(words[1:])
    for word in rest:
        name, assigned, _ = word.partition("=")
        if options is None:
            kept += [word] if word != "--resume" else []
        elif name in options:
            kept += [word, *([next(rest, "")] if options[name] and not assigned else [])]
    return f"`xvla {shlex.join([*kept, '--resume'])}` goes on from the last checkpoint"


def _report(line: str, details: dict[str, object], words: Sequence[str]) -> None:
    if "--json" in words:
        click.echo(json.dumps(details, indent=2, sort_keys=True, ensure_ascii=False))
    else:
        click.echo(f"error: {line}", err=True)


def _report_misuse(error: click.ClickException, words: Sequence[str]) -> None:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)  # the help, as it is laid out
        return
    line = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    if context is not None:
        line += f" (see `{context.command_path} --help`)"
    _report(line, {"error": line}, words)


if __name__ == "__main__":
    main()
