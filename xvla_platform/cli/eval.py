"""`xvla eval`: measure a registered adaptation again, from its own files."""

from pathlib import Path
from typing import Any

import click

from xvla_platform.cli.closed_loop import OF_BOTH, closed_loop_options, refuse_alone
from xvla_platform.cli.output import common_options, done, say, table

SAME_MACHINE = 1e-6  # errors that agree to this share are called equal; other machines round differently


@click.command("eval", short_help="Measure an adaptation on held-out episodes, or let it act and count.")
@click.argument("adaptation")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="The dataset, where it is not where the robot's plugin says.",
)
@click.option("--base", "base_name", metavar="NAME|FOLDER", help="The base, where it is not where the record says.")
@click.option(
    "--sampler",
    "sampler_name",
    metavar="NAME|TIMES",
    default="exact",
    show_default=True,
    help="How chunks are computed: exact, merged, fast, faster, int8, bf16, reuse, stale, graph, fast-graph, or flow "
    "times such as 1,0.3,0.1.",
)
@click.option("--samplers", is_flag=True, help="Measure every sampler against the exact one: time and deviation.")
@closed_loop_options
@common_options
def evaluate(
    adaptation: str,
    data: Path | None,
    base_name: str | None,
    sampler_name: str,
    samplers: bool,
    workspace: Path | None,
    **options: Any,
) -> None:
    """Measure ADAPTATION (`my_arm`, `my_arm/v2`) on the held-out episodes of its dataset.

    Where the dataset is not at hand, the example inside the adaptation is answered again and compared.
    With --closed-loop it acts in an environment instead, and successes are counted; with --ablate its inputs are
    changed one at a time. Both also take `my_arm/base`: the base with nothing learned. With --samplers the ways to
    compute a chunk are compared, in time and in physical units.
    """
    from xvla_platform.errors import RefusedError, XvlaError

    if options["closed_loop"] or options["ablate"]:
        if samplers:
            raise XvlaError("--samplers compares on recorded frames", hint="leave out --closed-loop and --ablate")
        from xvla_platform.cli.ablate import run_open_loop
        from xvla_platform.cli.closed_loop import run_closed_loop
        from xvla_platform.platform.workspace import Workspace

        if not options["closed_loop"]:
            refuse_alone({name: value for name, value in options.items() if name not in OF_BOTH})
        run = run_closed_loop if options["closed_loop"] else run_open_loop
        run(Workspace.find(workspace), adaptation, data=data, base=base_name, sampler=sampler_name, **options)
        return
    refuse_alone(options)
    from xvla_platform.adapt.launch import make_accelerator
    from xvla_platform.adapt.prepare import open_base, open_demonstrations
    from xvla_platform.cli.progress import Bars
    from xvla_platform.evaluation.report import example_difference, example_threshold, measure
    from xvla_platform.modelling.precision import device_label
    from xvla_platform.modelling.sampling import find_sampler
    from xvla_platform.platform.artifact import load_record, verify
    from xvla_platform.platform.bases import resolve_base
    from xvla_platform.platform.files import write_json
    from xvla_platform.platform.records import plugin_folder
    from xvla_platform.platform.registry import find
    from xvla_platform.platform.workspace import Workspace
    from xvla_platform.policy.policy import load_policy

    place = Workspace.find(workspace)
    chosen = find(place, adaptation)
    verify(chosen.folder)
    record = load_record(chosen.folder)
    base = resolve_base(base_name) if base_name is not None else open_base(record, place)
    device = make_accelerator().device
    policy = load_policy(chosen.folder, base=base, device=device, sampler=find_sampler(sampler_name))
    here = device_label(device)
    out = place.runs / "eval" / chosen.name / f"v{chosen.version}"
    dataset = record.spec.dataset
    at_hand = (
        data is not None or dataset.repo is not None or (plugin_folder(place, record) / (dataset.path or "")).exists()
    )
    if samplers:
        from xvla_platform.cli.samplers import run_samplers

        run_samplers(place, chosen, policy, open_demonstrations(place, record, data), out, [sampler_name])
        return
    if not at_hand:
        difference, chunk = example_difference(chosen.folder, policy)
        say(f"{chosen.label}: the dataset is not here, so the adaptation's own example was answered again")
        say(f"largest difference to the recorded chunk: {difference:.2e} in model units ({chunk.shape[0]} anchors)")
        allowed = example_threshold(chosen.folder, here)
        if difference > allowed:
            raise RefusedError(
                "the example's chunk is not the recorded one",
                file=chosen.folder,
                found=f"{difference:.2e} on {here}",
                allowed=f"up to {allowed:g}",
            )
        done(
            next_command=f"xvla eval {chosen.label} --data FOLDER",
            data={"adaptation": chosen.label, "example_difference": difference},
        )
        return
    reader = open_demonstrations(place, record, data)
    with Bars() as bars:
        measured = measure(chosen.folder, policy, reader, picture=out / "trajectories.png", progress=bars.task)
    rows = [(f, measured.units[f], measured.recorded[f], measured.errors[f]) for f in measured.errors]
    table(("field", "unit", "recorded", "now"), rows)
    same = all(
        abs(measured.errors[f] - measured.recorded[f]) <= SAME_MACHINE * max(1.0, measured.recorded[f])
        for f in measured.errors
    )
    verdict = "same as recorded" if same else f"measured here on {here}, which rounds as it does; compare the columns"
    if sampler_name != "exact":
        verdict = f"with the sampler {sampler_name}; recorded were those of the exact one"
    say(f"{measured.frames} frames of {measured.episodes} held-out episodes; {verdict}")
    data_out = {
        "adaptation": chosen.label,
        "errors": dict(measured.errors),
        "recorded": dict(measured.recorded),
        "units": dict(measured.units),
        "same": same,
        "sampler": sampler_name,
        "device": here,
    }
    write_json(out / "report.json", {"schema_version": 1, **data_out})
    done(wrote=place.shown(out), next_command=f"xvla show {chosen.name}", data=data_out)
