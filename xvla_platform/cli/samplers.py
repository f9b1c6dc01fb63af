"""`xvla eval ADAPTATION --samplers`: every sampler that this device can run, measured against the exact one."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xvla_platform.cli.output import done, say, table

if TYPE_CHECKING:
    from xvla_platform.data.reader import DatasetReader
    from xvla_platform.modelling.sampling import Sampler
    from xvla_platform.platform.registry import Adaptation
    from xvla_platform.platform.workspace import Workspace
    from xvla_platform.policy.comparing import Compared
    from xvla_platform.policy.policy import Policy

LIMIT = 2.0  # % of the action's standard deviation: what the plot marks as near


def run_samplers(
    place: "Workspace", chosen: "Adaptation", policy: "Policy", reader: "DatasetReader", out: Path, extra: Sequence[str]
) -> None:
    """Measure, print and write `samplers.json` and `samplers.png`; `extra` names further samplers by flow times."""
    import numpy as np
    import torch

    from xvla_platform.adapt.robot_data import split_samples
    from xvla_platform.cli.progress import Bars
    from xvla_platform.evaluation.plots import plot_samplers
    from xvla_platform.modelling.precision import device_label
    from xvla_platform.modelling.sampling import SAMPLERS, find_sampler, unavailable
    from xvla_platform.platform.files import read_json, write_json
    from xvla_platform.policy.comparing import call_rows, compare

    device = next(policy.model.parameters()).device
    wanted = list(dict.fromkeys([*SAMPLERS.values(), *map(find_sampler, extra)]))
    reasons = {sampler.name: unavailable(sampler, device) for sampler in wanted}
    able = [sampler for sampler in wanted if reasons[sampler.name] is None]
    parts = split_samples(policy.record, reader, policy.binding, policy.model.config.num_actions)
    episodes, samples = parts["test"]
    train = parts["train"][1]
    calls = len(call_rows(samples, policy))
    seed = int(read_json(chosen.folder / "metrics.json")["eval_seed"])
    with Bars() as bars:
        advance = bars.task(f"answer with {len(able)} samplers", calls)
        found = compare(policy, samples, train.chunks(np.arange(len(train))), able, seed=seed, progress=advance)
    units = policy.binding.error_units()
    _print(found, units)
    for name, reason in reasons.items():
        if reason is not None:
            say(f"{name}: {reason}")
    where = f"{device_label(device)}, {torch.get_num_threads()} threads"
    say(f"{calls} calls over {len(episodes)} held-out episodes, half a chunk apart, on {where}")
    points = {one.sampler.name: (one.ms, 100 * one.worst_share) for one in found}
    out.mkdir(parents=True, exist_ok=True)
    plot_samplers(out / "samplers.png", points, title=f"{chosen.label}: time and deviation from the exact chunk")
    data: dict[str, Any] = {
        "adaptation": chosen.label,
        "device": where,
        "calls": calls,
        "units": units,
        "samplers": [_as_dict(one) for one in found],
        "unavailable": {name: reason for name, reason in reasons.items() if reason is not None},
    }
    write_json(out / "samplers.json", {"schema_version": 1, **data})
    near = [one for one in found if 100 * one.worst_share < LIMIT]
    best = min(near, key=lambda one: one.ms).sampler.name
    done(
        wrote=[place.shown(out / name) for name in ("samplers.json", "samplers.png")],
        next_command=f"xvla eval {chosen.label} --sampler {best}",
        data=data,
    )


def _print(found: "Sequence[Compared]", units: dict[str, str]) -> None:
    fields = list(units)
    headers = ["sampler", "steps", "ms", "p95", "CPU ms", "unchanged", "faster", "% of std"]
    headers += [f"{name} [{units[name]}]" for name in fields]
    rows = []
    for one in found:
        row: list[object] = [one.sampler.name, len(one.sampler.times), round(one.ms, 1), round(one.ms_p95, 1)]
        row.append(round(one.cpu_ms, 1))
        row += [None if one.ms_unchanged is None else round(one.ms_unchanged, 1), f"{one.ratio:.2f}"]
        row += [f"{100 * one.worst_share:.2f}"]
        row += ["{:.3g} / {:.3g}".format(*one.deviation[name]) for name in fields]
        rows.append(row)
    say(
        "milliseconds of one call: median, 95th percentile, processor time, and with unchanged views; then the distance"
    )
    say("to the exact chunk: the worst field's share of the action's standard deviation, and per field mean / 95 % of")
    say("frames")
    table(headers, rows)


def _as_dict(one: "Compared") -> dict[str, Any]:
    sampler: Sampler = one.sampler
    return {
        "name": sampler.name,
        "about": sampler.about,
        "times": list(sampler.times),
        "weights": sampler.weights,
        "reuse": sampler.reuse,
        "aux_every": sampler.aux_every,
        "graph": sampler.graph,
        "ms": one.ms,
        "ms_p95": one.ms_p95,
        "cpu_ms": one.cpu_ms,
        "ms_unchanged": one.ms_unchanged,
        "ratio": one.ratio,
        "deviation": {name: {"mean": mean, "p95": p95} for name, (mean, p95) in one.deviation.items()},
        "share_of_std": dict(one.share),
        "worst_share_of_std": one.worst_share,
        "errors": dict(one.errors),
    }
