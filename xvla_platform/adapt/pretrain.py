"""Pretraining a base: several robots, one row each, phases of a mixture (arXiv 2510.10274, Sec. 4.1 and App. G).

In: a recipe and the demonstrations its plugins point to. Out: a model folder in the official layout, with its
tokenizer, preprocessing, `domains.json` (which rows are taken), what it does on held-out scenes and the recipe itself.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from filelock import FileLock
from numpy.typing import NDArray

from xvla_platform.adapt.arrays import create_map
from xvla_platform.adapt.base_folder import Robot, instructions_of, write_base, write_inputs
from xvla_platform.adapt.domain_record import RECIPE, open_domain
from xvla_platform.adapt.grounding import GroundedXVLA, attach_heads, count_things, detach_heads, things_named
from xvla_platform.adapt.held_out import measure, plot_pretraining
from xvla_platform.adapt.loop import Job, Observer, run_stage
from xvla_platform.adapt.mixture import Mixture, Stock, build_stock, mixture_weights
from xvla_platform.adapt.recipe_checks import check_grounding, check_model, check_recipe
from xvla_platform.adapt.run import read_lines
from xvla_platform.adapt.snapshot import load_newest, snapshots
from xvla_platform.adapt.sources import Progress, build_source, decode_frames, frames_of, frames_shape
from xvla_platform.data.binding import Binding
from xvla_platform.data.samples import Samples
from xvla_platform.errors import XvlaError
from xvla_platform.modelling.checkpoint import load_into, save_model
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.processor import Processor
from xvla_platform.platform.files import os_errors, write_text
from xvla_platform.platform.workspace import Workspace
from xvla_platform.specs.recipe import Domain, PretrainRecipe

CURVES = "curves.png"
FRAMES = "frames"


def pretrain(
    workspace: Workspace,
    recipe: PretrainRecipe,
    text: str,
    recipe_file: Path,
    out: Path,
    *,
    run: Path,
    observer: Observer,
    accelerator: Accelerator,
    progress: Callable[[str, int], Progress] | None = None,
    resume: bool = False,
    untrained: bool = False,
) -> Path:
    """Pretrain the recipe's base into `out`; `run` keeps checkpoints, metrics and their picture.

    Decoded frames are kept beside `run`, for every recipe over the same recordings.

    Args:
        text: The recipe as `load_recipe` gives it, kept with the run and beside the weights.
        untrained: Write the base as its first step would find it: what training from nothing starts from.
    """
    _check_out(out, text, resume)
    robots = [_open(workspace, domain) for domain in recipe.domains]
    check_recipe(recipe, recipe_file, robots, accelerator.num_processes)
    if accelerator.is_main_process:
        _begin(run, text, recipe_file, resume)
    accelerator.wait_for_everyone()
    staging = run / "base"
    with accelerator.main_process_first():
        if not (staging / "config.json").is_file():
            write_inputs(staging, recipe, recipe_file, robots)
    config = XVLAConfig.from_folder(staging)
    processor = Processor.from_folder(staging, config)
    for robot in robots:
        for instruction in instructions_of([robot]):
            # One that does not fit is refused here, before anything is decoded.
            processor.for_robot(robot.spec).tokens(instruction)
    things_named(instructions_of(robots), recipe.objects)
    check_model(config, recipe, recipe_file)
    if untrained:
        if accelerator.is_main_process:
            model = _model(config, recipe, robots)
            detach_heads(model)
            write_base(model, staging, recipe, text, out, {})
        return out
    with accelerator.main_process_first():
        stocks = [_stock(robot, robots, recipe, run.parent / FRAMES, processor, config, progress) for robot in robots]
    check_grounding(recipe, recipe_file, stocks)
    model = _model(config, recipe, robots).to(accelerator.device)
    snapshot = load_newest(run / "checkpoints") if resume else None
    for index, phase in enumerate(recipe.phases):
        if snapshot is not None and index < snapshot.stage:
            continue
        weights = mixture_weights(phase.mixture, [domain.name for domain in recipe.domains], recipe_file)
        model.weight, model.acts = phase.grounding, phase.policy
        job = Job(
            model=model,
            stage=phase.stage,
            index=index,
            seed=recipe.seed,
            sources=[stock.source for stock in stocks],
            weights=weights,
            processor=processor,
            accelerator=accelerator,
            folder=run,
            observer=observer,
            measure=lambda: measure(model, stocks, processor, acts=model.acts),
            measure_every=phase.measure_every,
            draw=Mixture(stocks=stocks, weights=weights),
            save_every=phase.stage.eval_every,
        )
        before = run / f"phase-{index}"
        if snapshot is not None and index == snapshot.stage and index > 0:
            load_into(model, before)
        outcome = run_stage(job, snapshot if snapshot is not None and index == snapshot.stage else None)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            # A later phase may train fewer groups than this one: its checkpoints alone could not restore it.
            shutil.rmtree(run / f"phase-{index + 1}", ignore_errors=True)
            with os_errors(run / f"phase-{index + 1}"):
                save_model(model, run / f"phase-{index + 1}")
            plot_pretraining(run / CURVES, read_lines(run), recipe.name)
    if accelerator.is_main_process:
        # A resumed run may have had nothing left to train, and a last phase without policy measures less.
        measures = outcome.measured if outcome.measured and model.acts else measure(model, stocks, processor)
        detach_heads(model)
        write_base(model, staging, recipe, text, out, measures)
    return out


def _model(config: XVLAConfig, recipe: PretrainRecipe, robots: list[Robot]) -> GroundedXVLA:
    """A fresh model, the same as `random_model` draws, with grounding heads where a phase asks for them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = GroundedXVLA(config)
    if any(phase.grounding for phase in recipe.phases):
        attach_heads(model, count_things(instructions_of(robots), recipe.objects), recipe.seed)
    return model


def _check_out(out: Path, text: str, resume: bool) -> None:
    """Refuse to replace a folder, except by --resume the base that this very recipe made."""
    if not out.exists():
        return
    if not resume:
        raise XvlaError("exists already", file=out, hint="choose another --out, or remove it")
    if not _is(out / RECIPE, text):
        raise XvlaError(
            "exists already and is not a base of this recipe", file=out, hint="choose another --out, or remove it"
        )


def begun(run: Path, out: Path, text: str) -> bool:
    """Whether there is something of this very recipe to go on with: checkpoints in `run`, or its base in `out`."""
    trained = bool(snapshots(run / "checkpoints")) and _is(run / RECIPE, text)
    return trained or _is(out / RECIPE, text)


def _is(file: Path, text: str) -> bool:
    return file.is_file() and file.read_text(encoding="utf-8") == text


def _begin(run: Path, text: str, recipe_file: Path, resume: bool) -> None:
    """Clear what an earlier run of that name left, or make sure that what is resumed is a run of this recipe."""
    kept, some = run / RECIPE, bool(snapshots(run / "checkpoints"))
    same = _is(kept, text)
    if resume and kept.is_file() and not same:
        raise XvlaError(
            "the recipe changed since the interrupted run", file=recipe_file, hint="start again without --resume"
        )
    if resume and some and not same:
        raise XvlaError("holds checkpoints without their recipe", file=run, hint="remove that folder to start again")
    if resume and same:
        return
    if same and some:
        raise XvlaError(
            "holds checkpoints of this recipe",
            file=run,
            hint="go on from them with --resume, or remove that folder to start again",
        )
    for path in (run / "checkpoints", run / "base", *run.glob("phase-*")):
        shutil.rmtree(path, ignore_errors=True)
    write_text(kept, text)


def _open(workspace: Workspace, domain: Domain) -> Robot:
    folder, spec, reader = open_domain(workspace, domain)
    return Robot(domain=domain, spec=spec, reader=reader, folder=folder)


def _stock(
    robot: Robot,
    robots: list[Robot],
    recipe: PretrainRecipe,
    cache: Path,
    processor: Processor,
    config: XVLAConfig,
    progress: Callable[[str, int], Progress] | None,
) -> Stock:
    binding = Binding(robot.spec, config.space, config.rotation_layout, None, folder=robot.folder)
    samples = Samples(robot.reader, robot.spec, binding, range(len(robot.reader.episodes)), config.num_actions)
    name = robot.domain.name
    frames: Any = OnDemand(samples, processor)
    if recipe.frames == "decoded":
        size = f"{processor.size[0]}x{processor.size[1]}"
        key = f"{name}-{robot.reader.fingerprint()[:16]}-{samples.footage()[:16]}-{size}.npy"
        frames = _frames(cache / key, samples, processor, progress(name, len(samples)) if progress else None)
    source = build_source(
        samples,
        frames,
        name=name,
        domain_id=robot.domain.domain_id,
        processor=processor.for_robot(robot.spec),
        config=config,
    )
    things = things_named(instructions_of(robots), recipe.objects)
    return build_stock(source, samples, robot.domain, things, recipe.held_out)


class OnDemand:
    """Frames that are decoded when a batch asks for them, in the place of an array [N, V', h, w, 3] of all."""

    def __init__(self, samples: Samples, processor: Processor) -> None:
        self._samples, self._processor = samples, processor
        self.shape = frames_shape(samples, processor)

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return frames_of(self._samples, self._processor, rows)


def _frames(path: Path, samples: Samples, processor: Processor, progress: Progress | None) -> NDArray[np.uint8]:
    """Decoded frames as a read-only memory map, shared by all processes and kept for the next run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # another run over the same recording waits, then finds it whole
        return _decoded(path, samples, processor, progress)


def _decoded(path: Path, samples: Samples, processor: Processor, progress: Progress | None) -> NDArray[np.uint8]:
    if not path.is_file():
        building = path.with_suffix(".building")
        out = create_map(building, frames_shape(samples, processor), np.uint8)
        decode_frames(samples, processor, out, progress)
        out.flush()
        building.rename(path)
    return np.load(path, mmap_mode="r")
