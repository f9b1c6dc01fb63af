"""Several robots in one stage of the loop: none of them can tell that the others are there."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from adapt_helpers import small_model
from loop_helpers import Recorder, equal, make_source, make_stage, processor_fixture, weights  # noqa: F401
from torch import Tensor

from xvla_platform.adapt.frozen import frozen_digest
from xvla_platform.adapt.loop import Job, run_stage
from xvla_platform.adapt.snapshot import load_newest
from xvla_platform.modelling.processor import Processor
from xvla_platform.modelling.slot import close_slot, open_slot, read_rows
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.policy.adapter import inject_lora
from xvla_platform.specs.plan import LoraSpec, Stage

ROBOTS = (3, 4, 5)


def make(
    processor: Processor,
    folder: Path,
    stage: Stage,
    domains: tuple[int, ...],
    recorder: Recorder | None = None,
    scale: float = 1.0,
    **more: Any,
) -> tuple[Job, list[Any]]:
    """A job over these robots' own data; `scale` spoils the data of robot 4, so that only its gradient is clipped."""
    model = small_model()
    if stage.lora is not None:
        inject_lora(model, stage.lora, seed=0)
    slots = [open_slot(model, domain) for domain in domains]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    sources = []
    for domain in domains:
        source = make_source(processor, cached=True, count=20 + domain, domain=domain, seed=domain)
        sources.append(replace(source, action=source.action * scale) if domain == 4 else source)
    owners = {
        names[id(row)]: source.name for slot, source in zip(slots, sources, strict=True) for row in slot.rows.values()
    }
    values: dict[str, Any] = {
        "model": model,
        "stage": stage,
        "index": 0,
        "seed": 7,
        "sources": sources,
        "weights": [1.0] * len(sources),
        "processor": processor,
        "accelerator": Accelerator(cpu=True),
        "folder": folder,
        "observer": recorder or Recorder(),
        "save_every": 3,
        "owners": owners if len(domains) > 1 else {},
    }
    return Job(**{**values, **more}), slots


def rows_after(job: Job, slots: list[Any], resume: bool = False) -> dict[int, dict[str, Tensor]]:
    """Run, close every slot, and read its rows."""
    run_stage(job, load_newest(job.folder / "checkpoints") if resume else None)
    for slot in reversed(slots):
        close_slot(job.model, slot)
    return {slot.domain_id: read_rows(job.model, slot.domain_id) for slot in slots}


def by_own_rows(model: XVLA, best_at: dict[str, int]) -> Any:
    """A validation error by robot that is lowest at the measurement named for it: the start is number 0."""
    count = iter(range(100))

    def errors() -> dict[str, float]:
        now = next(count)
        return {robot: 1.0 + abs(now - at) for robot, at in best_at.items()}

    return errors


@pytest.mark.parametrize("changes", [{}, {"dropout": 0.1}, {"ema": 0.8}, {"accumulate": 2}])
def test_the_slots_are_those_of_runs_alone(processor: Processor, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Bit for bit, also where a neighbour's gradient is a thousand times larger and clipped."""
    stage = make_stage(**changes)
    together = rows_after(*make(processor, tmp_path / "all", stage, ROBOTS, scale=1e3))
    for domain in ROBOTS:
        alone = rows_after(*make(processor, tmp_path / str(domain), stage, (domain,), scale=1e3))
        assert equal(together[domain], alone[domain])
        assert not equal(together[domain], read_rows(small_model(), domain))


def test_nothing_else_moves(processor: Processor, tmp_path: Path) -> None:
    """All weights but the rows of the run's robots are bit-identical, with slots open, trained and closed."""
    before = frozen_digest(small_model(), *ROBOTS)
    job, slots = make(processor, tmp_path, make_stage(), ROBOTS)
    assert frozen_digest(job.model, *ROBOTS) == before
    rows_after(job, slots)
    assert frozen_digest(job.model, *ROBOTS) == before
    assert frozen_digest(job.model, *ROBOTS[:2]) != frozen_digest(small_model(), *ROBOTS[:2])


def test_each_robot_keeps_its_own_best(processor: Processor, tmp_path: Path) -> None:
    """Measured at 0, 4 and 8: one robot's best is the middle, another's the end, the third's the start."""
    stage = make_stage()
    best_at = {"robot3": 1, "robot4": 2, "robot5": 0}
    job, slots = make(processor, tmp_path / "all", stage, ROBOTS)
    job = replace(job, validate=by_own_rows(job.model, best_at))
    together = rows_after(job, slots)
    for domain in ROBOTS:
        alone, own = make(processor, tmp_path / str(domain), stage, (domain,))
        name = f"robot{domain}"
        alone = replace(alone, validate=by_own_rows(alone.model, {name: best_at[name]}))
        assert equal(together[domain], rows_after(alone, own)[domain])


def test_an_interrupted_run_of_several_ends_the_same(processor: Processor, tmp_path: Path) -> None:
    """Stopped between checkpoints and resumed in a fresh model."""
    stage = make_stage()
    whole = rows_after(*make(processor, tmp_path / "whole", stage, ROBOTS))
    with pytest.raises(KeyboardInterrupt):
        run_stage(make(processor, tmp_path / "parts", stage, ROBOTS, Recorder(5))[0])
    parts = rows_after(*make(processor, tmp_path / "parts", stage, ROBOTS), resume=True)
    assert all(equal(whole[domain], parts[domain]) for domain in ROBOTS)


def test_a_shared_adapter_gets_the_mean_gradient(processor: Processor, tmp_path: Path) -> None:
    """One robot twice under two names: the adapter takes the steps of one robot alone, whatever the order."""
    stage = make_stage("lora", lora=LoraSpec(rank=2, alpha=4), grad_clip=1e6)
    one = make_source(processor, cached=True, count=20, domain=3, seed=3)
    runs = []
    for domains in ((3,), (3, 4)):
        job, _ = make(processor, tmp_path / str(len(domains)), stage, domains)
        sources = [replace(one, name=f"robot{domain}", domain_id=3) for domain in domains]
        owners = {name: robot for name, robot in job.owners.items() if robot == "robot3"}
        if len(domains) > 1:  # the second robot owns nothing here; its gradient is all in the adapter
            job = replace(job, owners=owners)
        recorder = Recorder()
        run_stage(replace(job, sources=sources, observer=recorder))
        runs.append({name: w for name, w in weights(job.model).items() if ".lora_" in name})
        assert {f"loss/{source.name}" for source in sources} <= recorder.lines[0].keys() or len(domains) == 1
    alone, shared = runs
    assert alone.keys() == shared.keys()
    assert all(torch.allclose(alone[name], shared[name], atol=1e-5) for name in alone)
