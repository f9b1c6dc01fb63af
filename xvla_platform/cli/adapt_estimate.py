"""What `xvla adapt` says before it starts: parameters, memory, time and cache of every stage."""

from typing import Any

from xvla_platform.cli.output import say, table


def show_estimate(records: list[Any], base: Any, plan: Any, accelerator: Any) -> dict[str, Any]:
    """Print a table of the stages and a line of the whole; returns the numbers for `--json`."""
    from xvla_platform.adapt.estimate import estimate_plan
    from xvla_platform.adapt.spread import kind_of
    from xvla_platform.adapt.start import stages_in_loop
    from xvla_platform.modelling.config import XVLAConfig
    from xvla_platform.modelling.processor import Processor

    config = XVLAConfig.from_folder(base.folder)
    config = config.with_domains(max(config.num_domains, *(record.slot.num_domains for record in records)))
    found = estimate_plan(
        plan,
        config,
        Processor.from_folder(base.folder, config).size,
        in_loop=stages_in_loop(plan, base),
        frames=sum(record.data.frames for record in records),
        device=accelerator.device,
        robots=len(records),
        processes=accelerator.num_processes,
        kinds={stage.name: kind_of(accelerator, stage) for stage in plan.stages},
    )
    table(
        ("stage", "trained", "frozen", "weights", "gradients", "moments", "activations", "memory", "time"),
        [
            (
                stage.name if stage.spread == "whole" else f"{stage.name} (sharded)",
                _count(sum(stage.trained.values())),
                _count(stage.frozen),
                *map(_size, (stage.weights, stage.gradients, stage.moments, stage.activations, stage.memory)),
                _time(stage.seconds),
            )
            for stage in found.stages
        ],
    )
    each = " a process" if accelerator.num_processes > 1 else ""
    total = sum(stage.seconds for stage in found.stages)
    say(
        f"estimate  {_size(found.peak)} of memory at most{each}, {_time(total)} of steps at"
        f" {found.flops_per_second / 1e9:.3g} GFLOP/s; cache {_size(found.cache)},"
        f" encoded in {_time(found.cache_seconds)}"
    )
    return found.as_dict()


def _count(number: int) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def _size(number: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f} B"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 5400 else f"{seconds / 3600:.3g} h"
