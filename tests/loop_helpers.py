"""A stage of each kind, random samples of a robot, and a job of the training loop on the small model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from adapt_helpers import PIXELS, SENTENCES, TOKENS, small_model, write_small_base
from torch import Tensor

from xvla_platform.adapt.loop import Job
from xvla_platform.adapt.sources import Source
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.processor import Processor
from xvla_platform.modelling.slot import open_slot
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.policy.adapter import inject_lora
from xvla_platform.specs.plan import Group, LoraSpec, Stage

MINE = 3
RATES: dict[str, dict[Group, float]] = {
    "prompt": {"soft_prompts": 1e-3, "action_heads": 1e-3},
    "lora": {"soft_prompts": 1e-3, "action_heads": 1e-3, "lora": 1e-3},
    "full": {"soft_prompts": 1e-4, "action_heads": 1e-3, "transformer_core": 1e-3, "vlm": 1e-4},
}


def make_stage(name: str = "prompt", **changes: Any) -> Stage:
    """A short stage of each kind; full tuning with dropout and colour jitter, as in the built-in recipe."""
    values: dict[str, Any] = {"name": name, "steps": 8, "batch_size": 6, "warmup_steps": 2, "eval_every": 4}
    values |= {"lr": RATES[name], "lora": LoraSpec(rank=2, alpha=4, dropout=0.1) if name == "lora" else None}
    if name == "full":
        values |= {"dropout": 0.1, "color_jitter": (0.2, 0.2, 0.2)}
    return Stage(**{**values, **changes})


class Recorder:
    """What the loop reported; optionally ends the process's patience at a step."""

    def __init__(self, stop: int | None = None) -> None:
        self.lines: list[dict[str, float]] = []
        self.started: list[tuple[int, dict[str, int]]] = []
        self._stop = stop

    def stage_started(self, stage: Stage, index: int, start: int, trained: Mapping[str, int]) -> None:
        self.started.append((start, dict(trained)))

    def step_finished(self, stage: Stage, step: int, metrics: Mapping[str, float]) -> None:
        self.lines.append(dict(metrics))
        if step == self._stop:
            raise KeyboardInterrupt


@pytest.fixture(scope="module", name="processor")
def processor_fixture(tmp_path_factory: pytest.TempPathFactory) -> Processor:
    folder = write_small_base(tmp_path_factory.mktemp("base") / "base")
    return Processor.from_folder(folder, XVLAConfig.from_folder(folder))


def make_source(processor: Processor, *, cached: bool, count: int = 20, domain: int = MINE, seed: int = 0) -> Source:
    """Random samples of one robot."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (count, 2, PIXELS, PIXELS, 3), generator=generator, dtype=torch.uint8)
    features = (
        torch.randn(count, TOKENS + 16, 32, generator=generator),
        torch.randn(count, TOKENS, 32, generator=generator),
    )
    return Source(
        name=f"robot{domain}",
        domain_id=domain,
        proprio=torch.randn(count, 20, generator=generator),
        action=torch.randn(count, 10, 20, generator=generator),
        tokens=torch.tensor([processor.tokens(text) for text in SENTENCES[:2]]),
        instruction_of=torch.arange(count) % 2,
        frames=frames.numpy(),
        num_views=2,
        features=features if cached else None,
    )


def make_job(processor: Processor, folder: Path, stage: Stage, recorder: Recorder | None = None, **more: Any) -> Job:
    """A fresh model with what the stage needs, ready to run."""
    model = small_model()
    if stage.lora is not None:
        inject_lora(model, stage.lora, seed=0)
    open_slot(model, MINE)
    in_loop = stage.trains_vlm(name for name, _ in model.named_modules())
    if not in_loop:
        model.vlm = None
    values: dict[str, Any] = {
        "model": model,
        "stage": stage,
        "index": 0,
        "seed": 7,
        "sources": [make_source(processor, cached=not in_loop)],
        "weights": [1.0],
        "processor": processor,
        "accelerator": Accelerator(cpu=True),
        "folder": folder,
        "observer": recorder or Recorder(),
        "save_every": 3,
    }
    return Job(**{**values, **more})


def weights(model: XVLA) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def falling(values: Sequence[float]) -> Any:
    """A validation error that takes the given values in turn."""
    rest = iter(values)
    return lambda: {"robot3": next(rest)}
