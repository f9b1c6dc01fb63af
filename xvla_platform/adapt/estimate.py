"""What a plan will take, said before it starts: parameters, memory, time and cache, stage by stage.

In: a base's configuration, the plan, how many frames and processes there are. Out: numbers counted on shapes alone (no
weight is read), and a time from this device's own speed, measured on one block of the policy transformer.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psutil
import torch

from xvla_platform.adapt.activations import FLOAT32, encoding_peak, kept_for_backward
from xvla_platform.adapt.spread import Kind
from xvla_platform.adapt.trainables import Trainable, eight_bit, select_trainables
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.flops import count_flops
from xvla_platform.modelling.precision import has_bf16
from xvla_platform.modelling.slot import open_slot
from xvla_platform.modelling.transformer import Block
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.policy.adapter import inject_lora
from xvla_platform.specs.plan import AdaptationPlan, Stage

PROBE_S = 0.1
PROBE_NUMBERS = 1 << 19  # of the probe's input


@dataclass(frozen=True, kw_only=True)
class StageEstimate:
    """One stage on one process; bytes, seconds.

    Attributes:
        trained: Numbers by group. frozen: Numbers that are loaded and stay as they are.
        gradients: Of what is trained, with the buckets that several processes exchange.
        moments: Of the optimizer. kept: Copies of the best weights so far, and of their moving average.
        activations: What the forward pass of a micro-batch leaves for the backward pass, with its largest step.
        seconds: Of all steps; measuring and checkpoints not counted.
    """

    name: str
    spread: Kind
    trained: dict[str, int]
    frozen: int
    weights: int
    gradients: int
    moments: int
    kept: int
    activations: int
    seconds: float

    @property
    def memory(self) -> int:
        """All of it together."""
        return self.weights + self.gradients + self.moments + self.kept + self.activations


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A whole plan on one process.

    Attributes:
        cache: Bytes of the features of all frames. cache_seconds: To encode them, by all processes together.
        encoding: Bytes that encoding one block of frames takes, weights included.
        program: Bytes that the process takes already, libraries and all (on the CPU they share memory with the rest).
    """

    stages: tuple[StageEstimate, ...]
    cache: int
    cache_seconds: float
    encoding: int
    program: int
    flops_per_second: float

    @property
    def peak(self) -> int:
        """The most memory of the device that the process will take."""
        return self.program + max(self.encoding, *(stage.memory for stage in self.stages))

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        stages = [{**asdict(stage), "memory": stage.memory} for stage in self.stages]
        return {**asdict(self), "stages": stages, "peak": self.peak}


def estimate_plan(
    plan: AdaptationPlan,
    config: XVLAConfig,
    image_size: tuple[int, int],
    *,
    in_loop: frozenset[str],
    frames: int,
    device: torch.device,
    robots: int = 1,
    processes: int = 1,
    kinds: Mapping[str, Kind] | None = None,
) -> Estimate:
    """Estimate a plan without loading anything.

    Args:
        image_size: The model's input (height, width) in pixels.
        in_loop: Stages that train the encoder. frames: Of all splits. robots: That are adapted together.
        processes: That share every batch.
        kinds: How each stage lies over the processes, by its name; whole where not named.
    """
    if any(stage.optimizer == "adamw8bit" for stage in plan.stages):
        eight_bit()  # where it is missing, say so now
    flops, speed = count_flops(config, image_size), flops_per_second(config, device)
    on_cpu = device.type == "cpu"
    with torch.device("meta"):
        encoding = _bytes(XVLA(config).parameters()) + encoding_peak(config, image_size, device)
    estimates = []
    for stage in plan.stages:
        estimates.append(
            _stage(
                stage,
                config,
                image_size,
                device,
                with_vlm=bool(in_loop),
                encodes=stage.name in in_loop,
                robots=robots,
                processes=processes,
                kind=(kinds or {}).get(stage.name, "whole"),
                seconds=_seconds(stage, flops, in_loop, processes, speed) * robots,
            )
        )
    cached = any(stage.name not in in_loop for stage in plan.stages)
    return Estimate(
        stages=tuple(estimates),
        cache=frames * flops.feature_numbers * (2 if has_bf16(device) else FLOAT32) if cached else 0,
        cache_seconds=frames * flops.encoder / speed / processes if cached else 0.0,
        encoding=encoding,
        program=psutil.Process().memory_info().rss if on_cpu else 0,
        flops_per_second=speed,
    )


def flops_per_second(config: XVLAConfig, device: torch.device) -> float:
    """How fast this device trains one block of the policy transformer, in the numbers that training will use."""
    from torch.utils.flop_counter import FlopCounterMode

    length = config.num_actions + config.len_soft_prompts + config.language_max_length
    with torch.random.fork_rng(devices=[]):
        block = Block(config.hidden_size, config.num_heads, config.mlp_ratio).to(device)
        samples = max(1, min(16, PROBE_NUMBERS // (length * config.hidden_size)))
        x = torch.randn(samples, length, config.hidden_size).to(device).requires_grad_()

    def once() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=has_bf16(device)):
            out = block(x)
        out.float().sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    with FlopCounterMode(display=False) as counter:
        once()
    spent, rounds = 0.0, 0
    while spent < PROBE_S:
        began = time.perf_counter()
        once()
        spent, rounds = spent + time.perf_counter() - began, rounds + 1
    return counter.get_total_flops() * rounds / spent


def _seconds(stage: Stage, flops: Any, in_loop: frozenset[str], processes: int, speed: float) -> float:
    policy = bool({"transformer_core", "lora"} & set(stage.lr))
    encodes = stage.name in in_loop
    sample = flops.step(trains_encoder=encodes, trains_policy=policy, encodes=encodes)
    if stage.checkpointing:
        sample += flops.policy + (flops.encoder if encodes else 0)
    return float(stage.steps * stage.batch_size * sample / processes / speed)


def _stage(
    stage: Stage,
    config: XVLAConfig,
    image_size: tuple[int, int],
    device: torch.device,
    *,
    with_vlm: bool,
    encodes: bool,
    robots: int,
    processes: int,
    kind: Kind,
    seconds: float,
) -> StageEstimate:
    with torch.device("meta"):
        model = XVLA(config, with_vlm=with_vlm)
        if stage.lora is not None:
            inject_lora(model, stage.lora, seed=0)
        for domain in range(robots):
            open_slot(model, domain)
    trainables = select_trainables(model, stage)
    groups = _groups(trainables)
    trained = sum(groups.values())
    weights = _bytes(model.parameters())
    shards = processes if kind != "whole" else 1
    samples = -(-stage.batch_size // processes // stage.accumulate)
    buckets = 2 if processes > 1 and kind == "whole" else 1
    copies = 1 + (stage.ema is not None)
    return StageEstimate(
        name=stage.name,
        spread=kind,
        trained=groups,
        frozen=weights // FLOAT32 - trained,
        weights=weights // shards,
        gradients=trained * FLOAT32 * buckets // shards,
        moments=trained * 2 * (FLOAT32 if stage.optimizer == "adamw" else 1) // shards,
        kept=trained * FLOAT32 * copies // shards,
        activations=kept_for_backward(model, stage, config, image_size, samples, device, encodes=encodes),
        seconds=seconds,
    )


def _groups(trainables: Sequence[Trainable]) -> dict[str, int]:
    out: dict[str, int] = {}
    for trainable in trainables:
        out[trainable.group] = out.get(trainable.group, 0) + trainable.parameter.numel()
    return out


def _bytes(parameters: Any) -> int:
    """Of distinct parameters (some are tied)."""
    return sum(p.numel() * p.element_size() for p in {id(p): p for p in parameters}.values())
