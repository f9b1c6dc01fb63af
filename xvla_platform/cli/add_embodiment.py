"""`xvla add-embodiment PLUGIN`: from a declaration and its data to a registered robot with a prompt slot."""

from pathlib import Path

import click

from xvla_platform.cli.output import common_options, done, say, table


@click.command(short_help="Check a robot's plugin against its data and give it a prompt slot.")
@click.argument("plugin")
@click.option("--base", "base_name", help="Shipped base, folder or Hub id; else `base` in xvla.yaml.")
@click.option("--revision", help="Commit, tag or branch of a base on the Hub.")
@click.option("--domain-id", type=int, help="The slot to take; else the lowest free one.")
@click.option("--force", is_flag=True, help="Take over the name of a robot registered from another plugin.")
@click.option(
    "--accept",
    "accepted",
    multiple=True,
    metavar="CODE",
    help="Register in spite of an error-level finding of the checks, by its code; may be repeated.",
)
@common_options
def add_embodiment(
    plugin: str,
    base_name: str | None,
    revision: str | None,
    domain_id: int | None,
    force: bool,
    accepted: tuple[str, ...],
    workspace: Path | None,
) -> None:
    """Register the robot that PLUGIN (a folder with plugin.yaml, or a robot's name) declares.

    Checks the declaration, then the dataset against it (keys, sizes, rate, values, video, and what `xvla check`
    measures in a sample of the episodes), computes statistics, takes a free prompt slot and writes embodiments/<name>/.
    Running it again updates the robot in place.
    """
    from xvla_platform.check.runner import catalogue
    from xvla_platform.cli.check import plugin_of, require_codes, show_findings
    from xvla_platform.cli.progress import Bars
    from xvla_platform.platform.bases import resolve_base
    from xvla_platform.platform.embodiments import add_embodiment as add
    from xvla_platform.platform.plugins import build_manager, load_plugin
    from xvla_platform.platform.workspace import Workspace

    place = Workspace.find(workspace)
    loaded = load_plugin(plugin_of(place, plugin))
    if accepted:  # before minutes are spent on the checks
        require_codes(accepted, set(catalogue(build_manager(loaded.folder))), "--accept")
    if base_name is not None:
        base = resolve_base(base_name, revision)
    else:
        base = resolve_base(place.config.base, revision, place.root)
    source = "--base" if base_name is not None else "xvla.yaml"
    say(f"robot     {loaded.spec.name}: {loaded.spec.description}")
    say(f"base      {base.id} (from {source}), {base.num_domains} domains, action space {base.action_mode}")
    with Bars() as bars:
        record = add(
            place,
            loaded,
            base=base,
            domain_id=domain_id,
            force=force,
            accept=accepted,
            progress=bars.task,
            checked=show_findings,
        )
    data = record.data
    say(f"data      {data.episodes} episodes, {data.frames} frames at {data.fps:g} Hz, {data.format}")
    say(f"slot      domain id {record.slot.domain_id} of {record.slot.num_domains}")
    say(f"prompt    starts as: {record.spec.prompt.init}")
    fields = [*(("proprio", f) for f in record.spec.proprio.fields)]
    rows = [(v, f.name, f.kind, f.size, f.unit, f.frame, f.normalization) for v, f in fields]
    rows += [("action", f.name, f.kind, f.size, f.unit, f.frame, f.normalization) for f in record.spec.action.fields]
    table(("vector", "field", "kind", "size", "unit", "frame", "normalized"), rows)
    folder = place.embodiments / record.spec.name
    done(
        wrote=place.shown(folder),
        next_command=f"xvla adapt --embodiment {record.spec.name}",
        data={
            "embodiment": record.spec.name,
            "base": record.base.model_dump(mode="json"),
            "slot": record.slot.model_dump(mode="json"),
            "data": data.model_dump(mode="json"),
            "accepted": [finding.model_dump(mode="json") for finding in record.accepted],
        },
    )
