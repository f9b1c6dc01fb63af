"""`xvla eval --ablate`: which inputs matter to a policy, in open loop or beside `--closed-loop`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from xvla_platform.cli.closed_loop import source_asked_for
from xvla_platform.cli.output import done, say, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xvla_platform.closed_loop.conditions import Condition, Material
    from xvla_platform.closed_loop.effects import Effect
    from xvla_platform.closed_loop.sources import PolicySource
    from xvla_platform.data.reader import DatasetReader
    from xvla_platform.platform.workspace import Workspace

FEW_EPISODES = 8  # below this, drawing episodes with replacement says little about episodes to come


def run_open_loop(
    place: "Workspace", target: str, *, data: Path | None, base: str | None, sampler: str = "exact", **options: Any
) -> None:
    """Measure every ablation on the held-out frames, then print and write what each did."""
    from xvla_platform.adapt.prepare import open_demonstrations
    from xvla_platform.cli.progress import Bars
    from xvla_platform.closed_loop.conditions import conditions_of, parse
    from xvla_platform.closed_loop.effects import MEAN_ERROR, open_loop_effects
    from xvla_platform.closed_loop.held_out import held_out_commands, material_of, measure_held_out
    from xvla_platform.closed_loop.wrong_words import CONDITION, without_another
    from xvla_platform.errors import XvlaError

    wanted = parse(options["ablate"])
    source = source_asked_for(place, target, data=data, base=base, sampler=sampler, options=options)
    policy = source()
    policy.encoder_of_sampler()  # one that recorded frames cannot show is refused before they are read
    reader = open_demonstrations(place, policy.record, data)
    material = material_of(policy, reader)
    if ("language", "wrong") in wanted:
        alone = without_another(held_out_commands(policy, reader), material.instructions)
        if alone is not None:
            say(f"left out  {CONDITION}: no command of the demonstrations names something else than `{alone}`")
            wanted.remove(("language", "wrong"))
            if not wanted:
                raise XvlaError("nothing is left to change", field="ablate", found=options["ablate"])
        else:
            say("note      wrong words come from other demonstrations: what they name need not lie in the scene")
    conditions, missing = conditions_of(wanted, policy, source.resolved_base().used_domains, material)
    for line in missing:
        say(f"left out  {line}")
    say(f"policy    {source.label}")
    with Bars() as bars:
        measured = measure_held_out(policy, reader, conditions, material, progress=bars.task)
    effects = open_loop_effects(measured.errors, conditions, measured.units, measured.episodes)
    episodes = len(set(measured.episodes.tolist()))
    say(f"frames    {len(measured.episodes)} of {episodes} held-out episodes")
    if episodes < FEW_EPISODES:
        say(f"note      intervals from {episodes} episodes are rough; {FEW_EPISODES} or more make them trustworthy")
    fields = list(measured.units)
    rows = []
    for condition in conditions:
        errors = [float(measured.errors[condition.name][field].mean()) for field in fields]
        found = [effect for effect in effects if (effect.condition, effect.measure) == (condition.name, MEAN_ERROR)]
        text = f"{found[0].harm:+.2f} ({found[0].low:+.2f} to {found[0].high:+.2f})" if found else "-"
        rows.append((condition.name, *errors, text, found[0].says if found else "-"))
    headers = ("condition", *(f"{field} [{measured.units[field]}]" for field in fields), "added error (95 %)", "")
    table(headers, rows)
    out = place.runs / "eval" / policy.record.spec.name / source.version
    report = report_effects(out, effects, f"{source.label}: error added on held-out frames")
    done(
        wrote=[place.shown(out / "ablation.json"), place.shown(out / "ablation.png")],
        next_command=f"xvla eval {target} --closed-loop --ablate {options['ablate']}",
        data={"target": source.label, "frames": len(measured.episodes), "episodes": episodes, "ablation": report},
    )


def choose(
    place: "Workspace", source: "PolicySource", text: str, *, data: Path | None
) -> "tuple[list[Condition], Material]":
    """The conditions for closed loop, with what the demonstrations give for them where they are at hand."""
    from xvla_platform.closed_loop.conditions import Material, conditions_of, parse
    from xvla_platform.closed_loop.held_out import material_of

    wanted = parse(text)
    policy = source()
    reader = _demonstrations(place, source, data)
    material = Material() if reader is None else material_of(policy, reader)
    conditions, missing = conditions_of(wanted, policy, source.resolved_base().used_domains, material)
    for line in missing:
        say(f"left out  {line}")
    return conditions, material


def report_effects(folder: Path, effects: "Sequence[Effect]", title: str) -> dict[str, Any]:
    """Print the verdicts, write `ablation.json` and `ablation.png`, and give the former's content."""
    from xvla_platform.closed_loop.effects import as_dict, plot_effects
    from xvla_platform.platform.files import write_json

    report = as_dict(effects)
    for sentence in report["verdicts"].values():
        say(sentence)
    write_json(folder / "ablation.json", report)
    if effects:
        plot_effects(folder / "ablation.png", effects, title)
    return report


def _demonstrations(place: "Workspace", source: "PolicySource", data: Path | None) -> "DatasetReader | None":
    """The demonstrations, or None where they are not at hand."""
    from xvla_platform.adapt.prepare import open_demonstrations
    from xvla_platform.platform.records import plugin_folder

    record = source.record()
    dataset = record.spec.dataset
    if data is None and dataset.repo is None and not (plugin_folder(place, record) / (dataset.path or "")).exists():
        return None
    return open_demonstrations(place, record, data)
