"""The code's own words: files, hooks, checks, help texts, layers and modules."""

import ast
import re
from pathlib import Path
from typing import Any

from docs_from_code.common import PACKAGE, ROOT, table

WIDTH = 100


def file(path: str) -> str:
    """A file of the repository, verbatim."""
    language = {".yaml": "yaml", ".py": "python", ".toml": "toml"}[Path(path).suffix]
    return f"```{language}\n{(ROOT / path).read_text(encoding='utf-8').rstrip()}\n```\n"


def hooks() -> str:
    """Every hook with its exact signature and docstring."""
    path = PACKAGE / "platform" / "hookspecs.py"
    parts = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and any(ast.unparse(d) == "hookspec" for d in node.decorator_list):
            parts.append(f"```text\n{signature(node)}\n```\n\n{_sentences(node)}\n")
    return "\n".join(parts)


def checks() -> str:
    """Every built-in rule of `xvla check` by groups of codes: severity, what it says, why it matters, how to fix it."""
    from xvla_platform.check.findings import GROUPS
    from xvla_platform.check.runner import catalogue

    rules = [rule for rule in catalogue().values() if rule.code.startswith("XV")]
    parts = []
    for prefix, title in GROUPS.items():
        rows = [
            (
                f"`{rule.code}` {rule.slug}",
                rule.severity,
                f"{rule.title[:1].upper()}{rule.title[1:]}. {rule.why}",
                rule.fix,
            )
            for rule in rules
            if rule.code.startswith(prefix)
        ]
        headers = ("code", "usual severity", "what it says and why it matters", "how to mend it")
        parts.append(f"### {prefix}xx: {title}\n\n{table(headers, rows)}")
    return "\n".join(parts)


def signature(node: ast.FunctionDef) -> str:
    """`name(argument: Type) -> Type` of a function's source."""
    return f"{node.name}({ast.unparse(node.args)}) -> {ast.unparse(node.returns) if node.returns else 'None'}"


def _sentences(node: Any) -> str:
    return " ".join((ast.get_docstring(node) or "").split())


def help_pages() -> str:
    """`--help` of the group and of every command."""
    import click

    from xvla_platform.cli.main import cli

    def context(command: click.Command, name: str, parent: click.Context | None = None) -> click.Context:
        return click.Context(
            command, info_name=name, parent=parent, terminal_width=WIDTH, max_content_width=WIDTH,
            help_option_names=["-h", "--help"],
        )  # fmt: skip

    root = context(cli, "xvla")
    parts = [f"## xvla\n\n```text\n{cli.get_help(root)}\n```\n"]
    for name in cli.list_commands(root):
        command = cli.get_command(root, name)
        assert command is not None
        parts.append(f"## xvla {name}\n\n```text\n{command.get_help(context(command, name, root))}\n```\n")
    return "\n".join(parts)


LAYERS = {
    "errors": "`XvlaError` and `RefusedError`: what was wrong, where, found, allowed, what to do",
    "hooks": "the two pluggy markers; `hookimpl` is all that a plugin author imports",
    "specs": "the vocabulary: every file with a schema as a frozen pydantic model, and X-VLA's action spaces as data",
    "platform": "files, workspace, bases by name, hooks and plugins, records, slots, registry, push and pull",
    "modelling": "X-VLA: Florence-2, soft-prompted transformer, per-domain tables, checkpoint layouts, objective",
    "data": "datasets: readers, writer, checks, statistics, resampling, rotations, columns bound to the model vector",
    "platform.embodiments": "registering a robot; it orchestrates `data`, so it stands above it",
    "measure": "what a recording says about itself: guesses with confidence and evidence, from numbers and images",
    "check": "a declaration against its recording and a base: named findings, and their report",
    "scaffold": "a plugin written from a dataset: what was measured filled in, what cannot be known left blank",
    "evaluation": "errors of chunks in physical units, baselines, pictures",
    "policy": "an adaptation's weights on disk, and observation → action chunk",
    "adapt": "plans → stages → the one loop; features, snapshots, the artifact; pretraining",
    "evaluation.report": "an adaptation measured again, from its own files",
    "sim": "simulated robots, the scripted expert, `xvla record` (extra `sim`)",
    "testing": "for plugin authors: conformance of plugins and readers, and faults planted to try the checks",
    "bench": "steps, chunks and batches measured beside their arithmetic and beside other implementations",
    "closed_loop": "a policy acting in a gymnasium environment, counted with intervals; its inputs taken away",
    "study": "recordings, bases, adaptations and evaluations as one resumable list of commands, and their tables",
    "cli": "the commands: the only layer that prints",
}


def layers() -> str:
    """The layers as tests/test_imports.py enforces them, lowest first."""
    tree = ast.parse((ROOT / "tests" / "test_imports.py").read_text(encoding="utf-8"))
    value = next(n.value for n in tree.body if isinstance(n, ast.AnnAssign) and ast.unparse(n.target) == "LAYERS")
    assert value is not None
    order = [ast.literal_eval(item) for item in value.elts]  # type: ignore[attr-defined]
    rows = [(number, f"`{name}`", LAYERS[name]) for number, names in enumerate(order) for name in sorted(names)]
    return table(("level", "layer", "holds"), rows)


def modules() -> str:
    """Every module with the first sentence of its docstring."""
    rows = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if "examples/" in name or not docstring:
            continue
        paragraph = " ".join(docstring.split("\n\n")[0].split()).replace("``", "`")
        rows.append((f"`{name}`", re.split(r"(?<=[.?])\s(?=[A-Z`])", paragraph, maxsplit=1)[0]))
    return table(("module", "what it is"), rows)
