#!/usr/bin/env python
"""Writes the parts of docs/*.md that are facts of the code: field tables, hooks, commands, modules, messages.

In: pages with `<!-- generated: WORDS -->` … `<!-- end -->`. Out: the same pages with what stands between the two
renewed. `--check` writes nothing and exits 1 where a page is out of date; tests/test_docs.py asks the same.
"""

import ast
import dataclasses
import importlib
import re
import sys
import tempfile
import typing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "xvla_platform"
DOCS = ROOT / "docs"
SECTION = re.compile(r"(<!-- generated: (?P<words>.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
WIDTH = 100

# What the docstrings leave to the obvious is said here once. A field without either is an error.
MEANINGS = {
    "EmbodimentSpec.name": "The robot's name: lower-case letters, digits and `_`. Also its folder in `embodiments/`.",
    "EmbodimentSpec.description": "One sentence for people; it goes into the model card.",
    "EmbodimentSpec.control_hz": "Rate of the recording and of control, in Hz. Must be the dataset's own rate.",
    "EmbodimentSpec.horizon_s": "Seconds that one action chunk covers, whatever the rate.",
    "EmbodimentSpec.cameras": "The camera streams; exactly one has `role: main`.",
    "EmbodimentSpec.proprio": "The state column, as ordered fields.",
    "EmbodimentSpec.action": "The action column, as ordered fields.",
    "EmbodimentSpec.dataset": "The demonstrations.",
    "EmbodimentSpec.prompt": "How the prompt slot starts.",
    "CameraSpec.name": "Name under which an observation carries the image.",
    "DatasetSpec.path": "Folder of the dataset, relative to the plugin folder. Exactly one of `path` and `repo`.",
    "DatasetSpec.repo": "Dataset id on the Hub.",
    "DatasetSpec.revision": "Commit, tag or branch of `repo`.",
    "PromptSpec.init": "`nearest`: a copy of the existing slot with the lowest measured loss on this robot's training "
    "episodes; `mean` of the slots used in pretraining; `random` as in a fresh base; `copy` of `copy_from`.",
    "PromptSpec.copy_from": "Domain id to copy; goes with `init: copy`, and only with it.",
    "VectorSpec.key": "Dataset key of the column, for every field that names none of its own.",
    "VectorSpec.fields": "Consecutive slices; their sizes add up to the column's width.",
    "ActionSpec.key": "Dataset key of the column, for every field that names none of its own.",
    "ActionSpec.space": "Action space the base must have; without it, the base's own is used.",
    "ActionSpec.fields": "Consecutive slices; their sizes add up to the column's width.",
    "ActionFieldSpec.reference": "Written for every field but an ignored one. `absolute`: the target itself. "
    "`relative`: as seen from the state of the same frame; `relative_to_first`: as seen from the state at the "
    "episode's first frame.",
    "AdaptationPlan.name": "Name of the plan, for people.",
    "AdaptationPlan.seed": "Everything random in the run is derived from it.",
    "AdaptationPlan.stages": "The stages, in order.",
    "Stage.name": "Name in metrics and files.",
    "Stage.lora": "Low-rank adapters to add; goes with a rate for group `lora`.",
    "LoraSpec.rank": "Rank of the matrices.",
    "LoraSpec.alpha": "Scale: the update is multiplied by alpha / rank.",
    "LoraSpec.dropout": "Dropout on the adapters' inputs.",
    "PoseSpec.position_m": "Metres.",
    "PoseSpec.quaternion_xyzw": "Unit quaternion, scalar last.",
    "EmbodimentSpec.frame_changes": "Per arm, from the recorded frame and tool to the model's.",
    "EmbodimentSpec.kinematics": "Per arm, from recorded joints to the end effector's pose, by its URDF or MJCF.",
    "LoraSpec.rslora": "Scale by alpha / sqrt(rank) instead (rank-stabilised LoRA).",
    "LoraSpec.dora": "Train magnitude and direction of the weights apart (DoRA).",
    "LoraSpec.targets": "Regular expression matched against full module names of the official layout.",
    "BaseRef.id": "Shipped name, Hub id, or folder (`./path` inside the workspace).",
    "BaseRef.revision": "Commit on the Hub.",
    "BaseRef.fingerprint": "sha256 over the names and hashes of the weight files.",
    "PromptSlot.domain_id": "Row of the five per-domain tables.",
    "DataRef.format": "Dataset reader.",
    "DataRef.path": "Folder, relative to the plugin folder.",
    "DataRef.repo": "Dataset id on the Hub.",
    "DataRef.revision": "Revision of `repo`.",
    "DataRef.fingerprint": "sha256 of the dataset's content.",
    "DataRef.episodes": "Number of episodes.",
    "DataRef.frames": "Number of frames.",
    "DataRef.fps": "Recorded rate in Hz.",
    "EmbodimentRecord.spec": "The declaration as it was checked.",
    "EmbodimentRecord.base": "The exact base model.",
    "EmbodimentRecord.slot": "The prompt slot.",
    "EmbodimentRecord.data": "The dataset it was checked against.",
    "Manifest.embodiment": "The robot.",
    "Manifest.version": "Number it was made with; a pulled folder may lie under another one.",
    "Manifest.created": "UTC, to the second.",
    "Manifest.base": "The exact base model.",
    "Manifest.slot": "The prompt slot.",
    "Manifest.data": "The dataset.",
    "Manifest.seed": "Seed of the run.",
    "Manifest.git": "Commit of the checkout the command ran in, with `+` for uncommitted changes.",
    "PretrainRecipe.name": "Name of the base; the default output folder is `bases/<name>`.",
    "PretrainRecipe.description": "One sentence for people.",
    "PretrainRecipe.seed": "Everything random is derived from it.",
    "PretrainRecipe.domains": "The rows and who trains them.",
    "PretrainRecipe.phases": "The phases, in order.",
    "Domain.domain_id": "The row.",
    "Phase.stage": "A stage, as in an adaptation plan; without an open slot its groups are the whole tables.",
    "Phase.mixture": "Sampling weight by domain name; absent means 0.",
    "Storage.summary": "One line for listings.",
    "Factory.summary": "One line for listings.",
    "PushRequest.name": "The robot.",
    "PushRequest.version": "Number of the version folder.",
    "PushRequest.folder": "The sealed folder to share.",
    "PushRequest.location": "What the user wrote after `--to`, without the scheme.",
    "PushRequest.public": "Whether `--public` was given.",
    "PushReceipt.location": "Where it lies now, as `xvla pull` takes it.",
    "PushReceipt.revision": "At which revision.",
    "PushReceipt.already_there": "Nothing had to be sent.",
}
VERSION_FIELD = "Version of this file's format; a newer one is refused."


# --- tables of fields -------------------------------------------------------------------------------------------


def fields(target: str, only: str = "") -> str:
    """`fields package.module:Model`: one row a field. With `own` behind it, inherited fields are left out."""
    module, _, name = target.partition(":")
    model = getattr(importlib.import_module(module), name)
    inherited = getattr(model.__mro__[1], "model_fields", {}) if only == "own" else {}
    rows = []
    for field, kind, default in _fields_of(model):
        if field in inherited:
            continue
        meaning = _meaning(model, field)
        if not meaning:
            raise SystemExit(
                f"{name}.{field} has no meaning: write it into the docstring or into {Path(__file__).name}"
            )
        rows.append((f"`{field}`", kind, default, meaning))
    return table(("field", "value", "default", "meaning"), rows)


def _fields_of(model: Any) -> list[tuple[str, str, str]]:
    if dataclasses.is_dataclass(model):
        missing = dataclasses.MISSING
        hints = {f.name: str(f.type) for f in dataclasses.fields(model)}
        return [
            (f.name, f"`{hints[f.name]}`", "required" if f.default is missing else f"`{f.default!r}`")
            for f in dataclasses.fields(model)
        ]
    return [(name, _kind(info.annotation, info.metadata), _default(info)) for name, info in model.model_fields.items()]


def _link(name: str) -> str:
    """To the section of that name, on whichever page it is."""
    for page in sorted(DOCS.glob("*.md")):
        if f"### {name}\n" in page.read_text(encoding="utf-8"):
            return f"[{name}]({page.name}#{name.lower()})"
    raise SystemExit(f"no page has a section {name}")


def _meaning(model: Any, field: str) -> str:
    if field == "schema_version":
        return VERSION_FIELD
    for owner in model.__mro__:
        if text := MEANINGS.get(f"{owner.__name__}.{field}"):
            return text
        info = getattr(owner, "model_fields", {}).get(field)
        if info is not None and info.description:
            return str(info.description)
        names = [f[0] for f in _fields_of(owner)] if hasattr(owner, "model_fields") or _is_data(owner) else []
        if text := attributes(owner.__doc__ or "", names).get(field):
            return text
    return ""


def _is_data(owner: Any) -> bool:
    return dataclasses.is_dataclass(owner)


def attributes(docstring: str, names: Sequence[str]) -> dict[str, str]:
    """The `Attributes:` section as name to text, whichever way its lines were wrapped."""
    _, _, section = " ".join(docstring.split()).partition("Attributes: ")
    if not section or not names:
        return {}
    either = "|".join(map(re.escape, names))
    parts = re.split(rf"(?:^|(?<=[.;] )|(?<= ))((?:{either})(?:, (?:{either}))*): ", section)
    found: dict[str, str] = {}
    for label, text in zip(parts[1::2], parts[2::2], strict=True):
        for name in label.split(", "):
            found[name] = text.strip().rstrip(";")
    return found


def _kind(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return "[height, width]" if arguments[0] == tuple[int, int] else _kind(arguments[0], metadata)
    if origin is typing.Literal:
        euler = [value for value in arguments if str(value).startswith("euler_")]
        values = [value for value in arguments if value not in euler]
        orders = "`euler_<order>_extrinsic` `euler_<order>_intrinsic` (twelve orders: `xyz` `zyx` …) " if euler else ""
        return orders + " ".join(f"`{value}`" for value in values)
    if type(None) in arguments:
        return _kind(next(a for a in arguments if a is not type(None)), metadata)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"list of {_kind(arguments[0])}"
        return f"{len(arguments)} {'whole ' if arguments[0] is int else ''}numbers"
    if origin is dict:
        return f"mapping of {_kind(arguments[0])} to {_kind(arguments[1])}"
    if hasattr(annotation, "model_fields"):
        return _link(annotation.__name__)
    word = {int: "whole number", float: "number", str: "text", bool: "true or false"}.get(annotation, "anything")
    return f"{word}{_bounds(metadata)}"


def _bounds(metadata: Iterable[Any]) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    parts = [
        f"{sign} {getattr(item, key):g}"
        for item in metadata
        for key, sign in signs.items()
        if getattr(item, key, None) is not None
    ]
    return " " + ", ".join(parts) if parts else ""


def _default(info: Any) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if value is None or value in ({}, ()):
        return ""
    return "its defaults" if hasattr(value, "model_dump") else f"`{value}`"


# --- the code's own words ---------------------------------------------------------------------------------------


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


# --- facts of the model -----------------------------------------------------------------------------------------


def action_spaces() -> str:
    """The published action spaces, field by field."""
    from xvla_platform.specs.action_space import SPACES, action_space

    rows = []
    for name in SPACES:
        for field in action_space(name).fields:
            dims = f"{field.start}-{field.stop - 1}" if field.size > 1 else f"{field.start}"
            hidden = "yes" if field.hidden else "no"
            loss = f"{field.weight:g} · {field.loss}"
            rows.append((f"`{name}`", field.arm, field.kind, dims, loss, f"`{field.loss_name}`", hidden))
    return table(("space", "arm", "kind", "dims", "weight · loss", "loss name", "hidden from input"), rows)


def layouts() -> str:
    """One name of every kind in each of the three public layouts."""
    from xvla_platform.modelling.layouts import from_native, to_native

    block = "vlm.vision_tower.blocks.0.0"
    names = [
        "transformer.soft_prompt_hub.weight",
        "vlm.vision_tower.convs.0.conv.weight",
        "vlm.vision_tower.convs.0.norm.weight",
        f"{block}.spatial_block.conv1.weight",
        f"{block}.spatial_block.norm1.weight",
        f"{block}.spatial_block.window_attn.qkv.weight",
        f"{block}.channel_block.norm1.weight",
        f"{block}.channel_block.channel_attn.qkv.weight",
        f"{block}.channel_block.norm2.weight",
        f"{block}.channel_block.ffn.fc1.weight",
        "vlm.multi_modal_projector.image_projection.weight",
        "vlm.multi_modal_projector.image_proj_norm.weight",
        "vlm.multi_modal_projector.image_position_embed.row_embeddings.weight",
        "vlm.multi_modal_projector.visual_temporal_embed.pos_idx_to_embed",
        "vlm.language_model.encoder.layers.0.fc1.weight",
    ]
    rows = []
    for name in names:
        official = from_native(name, "official")
        if to_native(official, "official") != name:
            raise SystemExit(f"{name} does not survive the way to the official layout and back")
        rows.append((f"`{name}`", f"`{official}`"))
    native = "this project; with `model.` before it, `lerobot`"
    return table((native, "`official`; with `model.` before it, `lerobot_vendored`"), rows)


def plans() -> str:
    """The stages of the built-in plans."""
    from xvla_platform.adapt.recipe import FULL, LORA, PROMPT

    rows = []
    for stage in (PROMPT, LORA, FULL):
        rates = ", ".join(f"`{group}` {rate:g}" for group, rate in stage.lr.items())
        rows.append((f"`{stage.name}`", stage.steps, stage.batch_size, rates, stage.warmup_steps, stage.eval_every))
    return table(("stage", "steps", "batch", "peak rates", "warm-up", "measured every"), rows)


# --- mistakes and the line each gives ----------------------------------------------------------------------------

ARM = "plugins/my_arm/plugin.yaml"
DECLARED: list[tuple[str, tuple[Any, ...], Any]] = [
    ("A field left out", ("control_hz",), None),
    ("A misspelt field", ("proprio", "fields", 0, "units"), "m"),
    ("A unit that does not exist", ("proprio", "fields", 0, "unit"), "inch"),
    ("A unit of another kind", ("proprio", "fields", 0, "unit"), "deg"),
    ("Two main views", ("cameras", 1, "role"), "main"),
    ("A rotation format of another size", ("action", "fields", 1, "format"), "quaternion_xyzw"),
    ("A gripper without its range", ("action", "fields", 2, "closed"), None),
    ("A gripper without polarity", ("action", "fields", 2, "closed"), 1.0),
    ("State and action in two frames", ("action", "fields", 0, "frame"), "world"),
    ("Two data sources", ("dataset", "repo"), "lab/demonstrations"),
    ("A copied slot without its number", ("prompt", "init"), "copy"),
    ("A file of a newer platform", ("schema_version",), 2),
]
MEASURED: list[tuple[str, tuple[Any, ...], Any]] = [
    ("A rate that is not the recording's", ("control_hz",), 30),
    ("A key the dataset lacks", ("cameras", 1, "key"), "observation.images.hand"),
    ("A resolution that is not the recording's", ("cameras", 0, "resolution"), [128, 160]),
    ("Fields that do not fill the column", ("proprio", "fields", 2), None),
]
CODE: list[tuple[str, str]] = [
    ("A misspelt hook", "@hookimpl\ndef check_before_pus(manifest, folder):\n    return []\n"),
    ("An argument that the hook does not have", "@hookimpl\ndef step_finished(stage, loss):\n    pass\n"),
    ("Code that does not run", "1 / 0\n"),
]


def mistakes() -> str:
    """Typical mistakes, made on the example, with the line that the platform answers."""
    rows = [(what, _answer(_declare, path, value)) for what, path, value in DECLARED]
    rows += [(what, _answer(_measure, path, value)) for what, path, value in MEASURED]
    rows += [(what, _answer(_run_code, text)) for what, text in CODE]
    return table(("mistake", "the line it gives"), [(what, f"`` {line} ``") for what, line in rows])


def _answer(action: Callable[..., object], *arguments: Any) -> str:
    from xvla_platform.errors import XvlaError

    try:
        action(*arguments)
    except XvlaError as error:
        return str(error)
    raise SystemExit("a mistake in the list is none any more")


def _changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((ROOT / ARM).read_text(encoding="utf-8"))
    place: Any = data
    for part in path[:-1]:
        place = place[part]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return data


def _declare(path: tuple[Any, ...], value: Any) -> Any:
    from xvla_platform.specs.base import validate_model
    from xvla_platform.specs.embodiment import EmbodimentSpec

    return validate_model(EmbodimentSpec, _changed(path, value), ARM)


def _measure(path: tuple[Any, ...], value: Any) -> None:
    from xvla_platform.data.verify import check_dataset
    from xvla_platform.platform.embodiments import open_data

    spec = _declare(path, value)
    check_dataset(open_data(spec, ROOT / "plugins" / "my_arm"), spec, plugin=Path(ARM))


def _run_code(text: str) -> None:
    from xvla_platform.errors import XvlaError
    from xvla_platform.platform.plugins import build_manager

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        (folder / "plugin.py").write_text(f"from xvla_platform import hookimpl\n\n\n{text}")
        try:
            build_manager(folder)
        except XvlaError as error:
            line = re.sub(r"<module '_xvla_plugin_\w+' from '([^']+)'>", r"\1", str(error))
            raise XvlaError(line.replace(str(folder), "plugins/my_arm")) from None


# --- pages ------------------------------------------------------------------------------------------------------


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |\n" for row in lines)


GENERATORS: dict[str, Callable[..., str]] = {
    "fields": fields,
    "file": file,
    "hooks": hooks,
    "checks": checks,
    "help": help_pages,
    "layers": layers,
    "modules": modules,
    "action-spaces": action_spaces,
    "layouts": layouts,
    "plans": plans,
    "mistakes": mistakes,
}


def renewed(text: str) -> str:
    """A page with every generated section as the code has it now."""

    def section(match: re.Match[str]) -> str:
        name, *arguments = match["words"].split()
        return f"{match[1]}\n{GENERATORS[name](*arguments)}\n{match[3]}"

    return SECTION.sub(section, text)


def main() -> int:
    """Renew, or with `--check` compare, every page."""
    sys.path.insert(0, str(ROOT))
    check = "--check" in sys.argv[1:]
    stale = []
    for path in sorted(DOCS.glob("*.md")):
        before = path.read_text(encoding="utf-8")
        after = renewed(before)
        if after != before:
            stale.append(path.name)
            if not check:
                path.write_text(after, encoding="utf-8")
    sys.stdout.write(f"{'out of date' if check else 'wrote'}: {', '.join(stale) or 'nothing'}\n")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
