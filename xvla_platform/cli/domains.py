"""`xvla domains`: the rows of a base, what each was trained with, and which are free."""

from pathlib import Path

import click

from xvla_platform.cli.output import common_options, done, say, table


@click.command(short_help="Show what the rows of a base were trained with.")
@click.option("--base", default="xvla-tiny", show_default=True, help="Shipped base, folder or Hub id.")
@click.option("--revision", help="Commit, tag or branch of a base on the Hub.")
@click.option(
    "--measure",
    is_flag=True,
    help="First write what the base's recipe and its recordings say into the base's domains.json.",
)
@common_options
def domains(base: str, revision: str | None, measure: bool, workspace: Path | None) -> None:
    """Show rate, horizon, gripper rule and rotation format of each row of a base, and which rows are free."""
    from xvla_platform.platform.bases import resolve_base
    from xvla_platform.platform.domains import domain_table, domains_json
    from xvla_platform.platform.workspace import Workspace

    place = Workspace.find(workspace)
    found = resolve_base(base, revision, place.root)
    wrote: list[Path] = []
    if measure:
        from xvla_platform.adapt.domain_record import measure_domains

        wrote.append(measure_domains(place, found))
    rows = domain_table(found)
    free = [row for row in range(found.num_domains) if row not in rows.domains]
    say(f"base      {found.id}, {found.num_domains} rows, action space {found.action_mode}")
    say(f"rotations {found.rotation_layout} in the model vector")
    say(f"source    {rows.source}" + (" (assumed: this base names no rows of its own)" if rows.assumed else ""))
    say()
    table(
        ("id", "name", "hz", "horizon s", "margin", "gripper", "rotations recorded as", "layout", "arms", "ranges"),
        [
            (
                row.domain_id,
                row.name,
                row.control_hz,
                row.horizon_s,
                row.tail_margin,
                None if row.gripper is None else str(row.gripper),
                row.rotation_source,
                row.rotation_layout,
                "+".join(row.arms) or None,
                "yes" if row.action else "no",
            )
            for row in rows.domains.values()
        ],
    )
    say()
    say(f"free      {', '.join(map(str, free)) or 'none: the tables grow by one row'}")
    done(
        wrote=wrote,
        next_command="xvla add-embodiment plugins/my_arm",
        data={
            "base": found.ref.model_dump(mode="json"),
            "num_domains": found.num_domains,
            "source": rows.source,
            "assumed": rows.assumed,
            "domains": domains_json(rows.domains),
            "free": free,
        },
    )
