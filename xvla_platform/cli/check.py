"""`xvla check PLUGIN`: a declaration tested against its data, finding by finding, before compute is spent.

Exit codes: 0 no error-level finding (with `--strict`: no warning either), 1 there is one, 2 misused.
"""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xvla_platform.cli.output import common_options, done, emit_json, say, table

if TYPE_CHECKING:
    from xvla_platform.check.findings import CheckReport, Rule
    from xvla_platform.platform.bases import ResolvedBase
    from xvla_platform.platform.plugins import LoadedPlugin
    from xvla_platform.platform.workspace import Workspace


@click.command(short_help="Test a robot's declaration against its data.")
@click.argument("plugin", required=False)
@click.option("--base", "base_name", help="Shipped base, folder or Hub id; else `base` in xvla.yaml.")
@click.option("--revision", help="Commit, tag or branch of a base on the Hub.")
@click.option("--against", help="A trained adaptation (`my_arm/v2`) whose statistics the data is compared with.")
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings too.")
@click.option("--ignore", "ignored", multiple=True, metavar="CODE", help="Leave a finding out; may be repeated.")
@click.option("--episodes", type=click.IntRange(min=1), default=60, show_default=True, help="Episodes to look into.")
@click.option(
    "--report",
    "report_folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for check.json and report.html; else runs/check/<name>.",
)
@click.option("--explain", metavar="CODE", help="Print what a code means, why it matters and how to mend it.")
@common_options
def check(
    plugin: str | None,
    base_name: str | None,
    revision: str | None,
    against: str | None,
    strict: bool,
    ignored: tuple[str, ...],
    episodes: int,
    report_folder: Path | None,
    explain: str | None,
    workspace: Path | None,
) -> int:
    """Test what PLUGIN (a folder with plugin.yaml, or a robot's name) declares against its data.

    Each finding says what was measured, why it matters and how to mend it: units, rotation formats, relative and
    absolute actions, grippers, cameras, timing, language, duplicates, and how the robot suits the base.
    """
    from xvla_platform.check.context import make_context, write_check
    from xvla_platform.check.runner import catalogue, check_groups, run_checks
    from xvla_platform.cli.progress import Bars
    from xvla_platform.platform.embodiments import base_space, open_data
    from xvla_platform.platform.plugins import build_manager
    from xvla_platform.platform.registry import find
    from xvla_platform.platform.workspace import Workspace

    place = Workspace.find(workspace)
    if explain is not None:
        loaded = _load(place, plugin) if plugin else None
        _explain(explain, catalogue(build_manager(loaded.folder if loaded else None)))
        return 0
    if plugin is None:
        raise click.UsageError("name a plugin folder or a robot, or a code with --explain")
    loaded = _load(place, plugin)
    groups = check_groups(build_manager(loaded.folder))
    require_codes(ignored, {rule.code for group in groups for rule in group.rules}, "--ignore")
    base = _base(place, base_name, revision)
    compared = find(place, against).folder if against else None
    spec = loaded.spec
    folder = _free_for_a_report(report_folder) if report_folder else place.runs / "check" / spec.name
    say(f"robot     {spec.name}: {spec.description}")
    say(f"base      {base.id if base else 'none: what concerns the base is not checked'}")
    reader = open_data(spec, loaded.folder)
    with Bars() as bars:
        context = make_context(
            spec,
            reader,
            plugin_folder=loaded.folder,
            base=base,
            space=base_space(base) if base else None,
            against=compared,
            episodes=episodes,
            progress=bars.task("reading episodes", min(episodes, len(reader.episodes))),
        )
        report = run_checks(context, bars.task("checking", len(groups)), groups=groups).without(ignored)
    write_check(report, context, folder)
    say(f"looked at {len(context.recording.episodes)} of {len(reader.episodes)} episodes")
    show_findings(report)
    failed = bool(report.of("error") or (strict and report.of("warning")))
    first = next(iter(report.findings), None)
    following = f"xvla check {plugin} --explain {first.code}" if failed and first else f"xvla add-embodiment {plugin}"
    done(
        wrote=[place.shown(path) for path in sorted(folder.iterdir()) if path.is_file()],
        next_command=following,
        data={
            "ok": not failed,
            "base": base.ref.model_dump(mode="json") if base else None,
            "strict": strict,
            "ignored": list(ignored),
            **report.to_json(),
        },
    )
    return int(failed)


def _free_for_a_report(folder: Path) -> Path:
    """The folder, whose former report a new one replaces, file by file; one that holds anything else is refused."""
    from xvla_platform.check.context import REPORT_FILES
    from xvla_platform.errors import XvlaError

    if folder.is_dir():
        others = sorted({path.name for path in folder.iterdir()} - REPORT_FILES)
    else:
        others = [folder.name] if folder.exists() else []
    if others:
        raise XvlaError(
            "is not free for a report",
            file=folder,
            field="--report",
            found=others[0],
            allowed="a new folder, an empty one, or one with a report alone",
        )
    return folder


def show_findings(report: "CheckReport") -> None:
    """Findings by severity: what and where in a table, then what was measured and one line to mend it."""
    if not report.findings:
        say("nothing found")
        return
    say()
    rows = [
        (finding.severity, finding.code, finding.field or "-", report.rules[finding.code].slug)
        for finding in report.findings
    ]
    table(("severity", "code", "field", "finding"), rows)
    say()
    for finding in report.findings:
        rule = report.rules[finding.code]
        say(_wrapped(f"{finding.code} {finding.field or rule.slug}: {finding.measured}"))
        say(_wrapped(f"fix: {finding.fix or rule.fix}", "      "))
    counts = ", ".join(f"{len(report.of(level))} {level}" for level in ("error", "warning", "info"))
    say()
    say(f"found     {counts}")


def _explain(code: str, rules: "dict[str, Rule]") -> None:
    require_codes((code.upper(),), set(rules), "--explain")
    rule = rules[code.upper()]
    say(f"{rule.code} {rule.slug} ({rule.severity})")
    say(_wrapped(f"{rule.title[:1].upper()}{rule.title[1:]}.", ""))
    say()
    say(_wrapped(f"Why it matters: {rule.why}", ""))
    say()
    say(_wrapped(f"How to mend it: {rule.fix}", ""))
    if click.get_current_context().find_root().meta.get("xvla.json"):
        emit_json(
            {
                "code": rule.code,
                "slug": rule.slug,
                "severity": rule.severity,
                "title": rule.title,
                "why": rule.why,
                "fix": rule.fix,
            }
        )


def _load(place: "Workspace", source: str) -> "LoadedPlugin":
    """The plugin in a folder, or that a robot registered here was made from, or in `plugins/`, or installed."""
    from xvla_platform.platform.embodiments import find_embodiment
    from xvla_platform.platform.plugins import load_plugin
    from xvla_platform.platform.records import plugin_folder, registered

    if not Path(source).expanduser().is_dir() and source in {record.spec.name for record in registered(place)}:
        return load_plugin(plugin_folder(place, find_embodiment(place, source)))
    return load_plugin(plugin_of(place, source))


def plugin_of(place: "Workspace", source: str) -> "str | Path":
    """What a user means by PLUGIN: a folder, else the name of one in the workspace's `plugins/`, else as it stands."""
    from xvla_platform.errors import XvlaError
    from xvla_platform.platform.files import entries
    from xvla_platform.platform.plugins import installed_embodiments

    if Path(source).name != source or Path(source).expanduser().exists():
        return source
    if (place.plugins / source / "plugin.yaml").is_file():
        return place.plugins / source
    installed = installed_embodiments()
    if source not in installed:
        own = [folder.name for folder in entries(place.plugins) if (folder / "plugin.yaml").is_file()]
        raise XvlaError(
            "is no folder, no robot of this workspace and no installed one",
            field="PLUGIN",
            found=source,
            allowed=[*own, *sorted(installed)] or "the path of a folder with plugin.yaml",
        )
    return source


def _base(place: "Workspace", name: str | None, revision: str | None) -> "ResolvedBase | None":
    """The base named, which must be there; else the workspace's, if it can be had. A broken xvla.yaml is refused."""
    from xvla_platform.errors import XvlaError
    from xvla_platform.platform.bases import resolve_base

    if name is not None:
        return resolve_base(name, revision)
    configured = place.config.base
    if revision is not None:
        return resolve_base(configured, revision, place.root)
    try:
        return resolve_base(configured, None, place.root)
    except XvlaError as error:
        say(f"note      {error}")
        return None


def require_codes(codes: tuple[str, ...], known: set[str], option: str) -> None:
    """Refuse a misspelt code of a finding."""
    from xvla_platform.errors import XvlaError

    for code in codes:
        if code not in known:
            raise XvlaError("unknown code of a finding", field=option, found=code, allowed=sorted(known))


def _wrapped(text: str, indent: str = "    ") -> str:
    return textwrap.fill(text, 110, subsequent_indent=indent, initial_indent=indent if indent == "      " else "")
