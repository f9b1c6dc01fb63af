"""One cell of our own, in a process of its own: `python -m xvla_platform.bench.ours SPEC.json RESULT.json`.

In: what to do (`kind`), over which base, how often. Out: what each round spent. Steps run through the loop's own
`train_step` on random samples; the public recipe's steps, which our loop refuses to take, are written out here.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xvla_platform.bench.clock import Meter, cpu_seconds, measure
from xvla_platform.bench.sizes import make_base, tokens_of_view
from xvla_platform.modelling.checkpoint import load_model
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.objective import stratified_times
from xvla_platform.modelling.slot import SLOT_MODULES, open_slot
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.policy.adapter import inject_lora
from xvla_platform.specs.plan import LoraSpec, Stage

SLOT = {"soft_prompts": 1e-3, "action_heads": 1e-3}
ALL = {"soft_prompts": 1e-5, "action_heads": 1e-4, "transformer_core": 1e-4, "vlm": 1e-5}
PUBLISHED_DROPOUT = 0.1
FULL: dict[str, dict[str, Any]] = {  # ways to train everything
    "full": {},
    "full_checkpointed": {"checkpointing": True},
    "full_frugal": {"checkpointing": True, "optimizer": "adamw8bit"},
    "full_compiled": {"compile": True},
}
POOL = 32  # samples that steps draw from
DOMAIN = 3
Spec = dict[str, Any]
Work = Callable[[int], Any]


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(spec["threads"])
    torch.manual_seed(0)
    kinds: dict[str, Callable[[Spec], dict[str, Any]]] = {
        "base": _base,
        "inference": _inference,
        "pipeline": _pipeline,
        "end_to_end": _end_to_end,
        "end_to_end_public": _end_to_end_public,
    }
    Path(sys.argv[2]).write_text(json.dumps(kinds.get(spec["kind"], _steps)(spec)))


def _base(spec: Spec) -> dict[str, Any]:
    """Write the base, and count what its cells will have to compute."""
    from xvla_platform.bench.arithmetic import count
    from xvla_platform.modelling.processor import Processor

    make_base(spec["size"], Path(spec["folder"]))
    config = XVLAConfig.from_folder(Path(spec["folder"]))
    size = Processor.from_folder(Path(spec["folder"]), config).size
    return {
        "flops": {
            views: count(replace(config, num_views=int(views)), size, kinds) for views, kinds in spec["count"].items()
        }
    }


def _steps(spec: Spec) -> dict[str, Any]:
    if not spec["kind"].startswith("public"):
        return own_steps(spec, _meter(spec))
    work, trained = public_steps(spec)
    return {"trained": trained, **measure(work, _meter(spec))}


def _meter(spec: Spec) -> Meter:
    return Meter(**{key: spec[key] for key in ("rounds", "warmup", "limit_s", "device")})


def stage_of(kind: str, model: XVLA, batch: int) -> Stage:
    """The stage whose steps a kind of cell takes."""
    common: dict[str, Any] = {"name": "bench", "steps": 1_000_000, "batch_size": batch}
    if kind in ("prompt", "prompt_uncached"):
        return Stage(lr=SLOT, **common)
    if kind == "lora":
        return Stage(lr={**SLOT, "lora": 1e-4}, lora=LoraSpec(), **common)
    if kind == "lora_everywhere":
        lora = LoraSpec(targets=every_linear(model))
        return Stage(lr={**SLOT, "lora": 1e-4}, lora=lora, dropout=PUBLISHED_DROPOUT, **common)
    return Stage(lr=ALL, dropout=PUBLISHED_DROPOUT, **FULL[kind], **common)


def every_linear(model: XVLA) -> str:
    """A pattern of every linear layer: what peft calls `all-linear`."""
    return "|".join(re.escape(name) for name, module in model.named_modules() if isinstance(module, nn.Linear))


def own_steps(spec: Spec, meter: Meter) -> dict[str, Any]:
    """The loop's steps, as an adaptation takes them, and how many numbers they train."""
    from xvla_platform.adapt.launch import make_accelerator
    from xvla_platform.adapt.loop import Job, run_stage
    from xvla_platform.modelling.processor import Processor

    kind, folder = spec["kind"], Path(spec["folder"])
    cached = kind in ("prompt", "lora")
    model = _load(spec, with_vlm=not cached)
    stage = stage_of(kind, model, spec["batch"])
    if stage.lora is not None:
        inject_lora(model, stage.lora, seed=0)
    open_slot(model, DOMAIN)
    watch = Watch(meter)
    job = Job(
        model=model,
        stage=stage,
        index=0,
        seed=0,
        sources=[random_source(spec, model, cached=cached)],
        weights=[1.0],
        processor=Processor.from_folder(folder, model.config),
        accelerator=make_accelerator(),
        folder=folder,
        observer=watch,
        save_every=stage.steps,
        save_seconds=float("inf"),
    )
    with suppress(Enough):
        run_stage(job)
    return {"trained": watch.trained, **meter.found()}


class Enough(Exception):
    """Leaves the loop when the meter has seen enough; its stage is not to be finished or saved."""


class Watch:
    """The loop's observer: each step is a round."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.trained = 0

    def stage_started(self, stage: Stage, index: int, start: int, trained: Mapping[str, int]) -> None:
        """Begin to measure."""
        self.trained = sum(trained.values())
        self._meter.begin()

    def step_finished(self, stage: Stage, step: int, metrics: Mapping[str, float]) -> None:
        """End a round."""
        if self._meter.round_over():
            raise Enough


def public_steps(spec: Spec) -> tuple[Work, int]:
    """The public recipe's step on our model: every gradient, Adam for everything, a learning rate of 0 as the freeze.

    `public_lora` is its LoRA script: rank 8 on every linear layer, and the whole tables.
    """
    model = _load(spec)
    if spec["kind"] == "public_lora":
        inject_lora(model, LoraSpec(targets=every_linear(model)), seed=0)
    for name, parameter in model.named_parameters():
        table = name.startswith(SLOT_MODULES)
        parameter.requires_grad_(spec["kind"] == "public" or ".lora_" in name or table)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    moving = [p for name, p in parameters.items() if name.startswith(SLOT_MODULES)]
    frozen = [p for name, p in parameters.items() if not name.startswith(SLOT_MODULES)]
    optimizer = torch.optim.AdamW([{"params": moving, "lr": 1e-4}, {"params": frozen, "lr": 0.0}], betas=(0.9, 0.95))
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0
    model.transformer.set_dropout(PUBLISHED_DROPOUT)
    model.train()
    parts = [random_inputs(model, spec, part) for part in _parts(spec["batch"], spec["micro"])]

    def step(_: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        for part in parts:
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=spec["device"] == "cuda"):
                loss = torch.stack(list(model(**part).values())).sum()
            (loss * (len(part["action"]) / spec["batch"])).backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()

    return step, sum(p.numel() for p in parameters.values())


def _inference(spec: Spec) -> dict[str, Any]:
    """Images and words to an action chunk, batch 1, with a named sampler."""
    from xvla_platform.bench.inference import chunk_maker

    model = _load(spec)
    make = chunk_maker(model, spec["sampler"], DOMAIN, random_inputs(model, spec, 1))
    chunks: list[Any] = []

    def work(_: int) -> None:
        chunks[:] = [make()]

    return {**measure(work, _meter(spec)), "chunk": chunks[0].tolist()}


def _pipeline(spec: Spec) -> dict[str, Any]:
    from xvla_platform.bench.pipeline import batches

    work, frames = batches(Path(spec["data"]), Path(spec["folder"]), spec["batch"])
    return {**measure(work, _meter(spec)), "frames": frames}


def _end_to_end(spec: Spec) -> dict[str, Any]:
    """The cache built and the steps taken: `frames` and `steps` of them, the rest for the reader to extrapolate."""
    from xvla_platform.adapt.features import encode_batch
    from xvla_platform.modelling.processor import Processor

    model = _load(spec)
    processor = Processor.from_folder(Path(spec["folder"]), model.config)
    images = random_source(spec, model, cached=False)
    assert images.frames is not None
    before = cpu_seconds()
    for start in range(0, spec["frames"], POOL):
        rows = np.arange(min(POOL, spec["frames"] - start))
        encode_batch(model, images.frames[rows], images.tokens[images.instruction_of[rows]], processor)
    encoding = {"encode_cpu_s": cpu_seconds() - before, "frames": spec["frames"]}
    del model
    return {**encoding, **own_steps({**spec, "kind": "prompt"}, _meter(spec))}


def _end_to_end_public(spec: Spec) -> dict[str, Any]:
    work, trained = public_steps({**spec, "kind": "public"})
    return {"trained": trained, **measure(work, _meter(spec))}


def _load(spec: Spec, *, with_vlm: bool = True) -> XVLA:
    model = load_model(Path(spec["folder"]), device=spec["device"], with_vlm=with_vlm)
    model.config = replace(model.config, num_views=spec["views"])
    return model


def _parts(batch: int, largest: int) -> list[int]:
    return [min(largest, batch - start) for start in range(0, batch, largest)]


def random_source(spec: Spec, model: XVLA, *, cached: bool) -> Any:
    """Samples with random numbers in them: frames to be encoded, or features as if they had been."""
    from xvla_platform.adapt.sources import Source
    from xvla_platform.modelling.processor import Processor

    config, generator = model.config, torch.Generator().manual_seed(0)
    height, width = Processor.from_folder(Path(spec["folder"]), config).size
    grid = tokens_of_view(config.florence, (height, width))
    features = int(config.florence["projection_dim"])
    frames = np.random.default_rng(0).integers(0, 256, (POOL, config.num_views, height, width, 3), dtype=np.uint8)
    main = torch.randn(POOL, grid + config.language_max_length, features, generator=generator)
    aux = torch.randn(POOL, grid * (config.num_views - 1), features, generator=generator)
    return Source(
        name="bench",
        domain_id=DOMAIN,
        proprio=torch.randn(POOL, config.dim_proprio, generator=generator),
        action=torch.rand(POOL, config.num_actions, config.dim_action, generator=generator),
        tokens=torch.full((1, config.language_max_length), 1),
        instruction_of=torch.zeros(POOL, dtype=torch.long),
        frames=None if cached else frames,
        num_views=config.num_views,
        features=(main, aux) if cached else None,
    )


def random_inputs(model: XVLA, spec: Spec, batch: int) -> dict[str, Tensor]:
    """Model-ready inputs, the same numbers that the peer makes for itself."""
    from xvla_platform.modelling.processor import Processor

    config = model.config
    height, width = Processor.from_folder(Path(spec["folder"]), config).size
    draw = np.random.default_rng(0)
    pixels = draw.standard_normal((batch, config.num_views, 3, height, width), dtype=np.float32)
    proprio = draw.standard_normal((batch, config.dim_proprio), dtype=np.float32)
    action = draw.random((batch, config.num_actions, config.dim_action), dtype=np.float32)
    inputs = {
        "input_ids": torch.ones(batch, config.language_max_length, dtype=torch.long),
        "pixel_values": torch.from_numpy(pixels),
        "image_mask": torch.ones(batch, config.num_views, dtype=torch.bool),
        "domain_id": torch.full((batch,), DOMAIN),
        "proprio": torch.from_numpy(proprio),
        "action": torch.from_numpy(action),
        "noise": torch.randn(batch, config.num_actions, config.dim_action),
        "t": stratified_times(torch.rand(1), batch),
    }
    return {key: value.to(spec["device"]) for key, value in inputs.items()}


if __name__ == "__main__":
    main()
