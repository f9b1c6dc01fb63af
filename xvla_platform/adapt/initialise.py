"""How a new slot starts: a copy of the existing slot that predicts this robot best, the mean, or at random.

With cached features the loss of every existing slot on this robot's data costs seconds, so `nearest` is
measured, never guessed.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from xvla_platform.adapt.features import encode_source
from xvla_platform.adapt.sources import Source, take
from xvla_platform.errors import XvlaError
from xvla_platform.modelling import objective
from xvla_platform.modelling.processor import Processor
from xvla_platform.modelling.slot import mean_rows, random_rows, read_rows, write_rows
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.platform.bases import ResolvedBase
from xvla_platform.specs.embodiment import PromptSpec

PROBE = 256  # samples of the training episodes that each existing slot is measured on
BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Initialisation:
    """Where the slot's rows came from; `losses` is the ranking of the existing slots where it was measured."""

    method: str
    source: str
    losses: dict[str, float]


def check_initialisation(prompt: PromptSpec, base: ResolvedBase) -> None:
    """Refuse a start that this base cannot give."""
    if prompt.copy_from is not None and prompt.copy_from >= base.num_domains:
        raise XvlaError(
            f"{base.id} has no such slot to copy",
            field="prompt.copy_from",
            found=prompt.copy_from,
            allowed=f"0-{base.num_domains - 1}",
        )
    if prompt.init in ("nearest", "mean") and not base.used_domains:
        raise XvlaError(
            f"no slot of {base.id} was used in its pretraining",
            field="prompt.init",
            found=prompt.init,
            allowed="random, copy",
        )


def probe_of(source: Source, model: XVLA, processor: Processor, scratch: Path) -> Source:
    """The evenly spaced training samples that existing slots are measured on, with their features."""
    probe = take(source, np.unique(np.linspace(0, len(source) - 1, PROBE).astype(int)))
    if probe.features is not None:
        return probe
    return replace(probe, features=encode_source(model, probe, processor, scratch / "probe"))


def initialise_slot(
    model: XVLA, domain_id: int, prompt: PromptSpec, used: dict[int, str], probe: Source, seed: int
) -> Initialisation:
    """Fill row `domain_id` as the plugin declares; `probe` is what `probe_of` chose."""
    losses: dict[str, float] = {}
    if prompt.init == "random":
        rows, origin = random_rows(model, seed), f"random (seed {seed})"
    elif prompt.init == "mean":
        rows, origin = mean_rows(model, sorted(used)), f"mean of {len(used)} slots"
    elif prompt.init == "copy":
        assert prompt.copy_from is not None
        rows = read_rows(model, prompt.copy_from)
        origin = f"copy of {prompt.copy_from} ({used.get(prompt.copy_from, 'unused')})"
    else:
        ranking = sorted((slot_loss(model, domain, probe, seed), domain) for domain in used)
        losses = {f"{domain} {used[domain]}": round(loss, 4) for loss, domain in ranking}
        best = ranking[0][1]
        rows, origin = read_rows(model, best), f"copy of {best} ({used[best]}), lowest measured loss"
    write_rows(model, domain_id, rows)
    return Initialisation(method=prompt.init, source=origin, losses=losses)


@torch.no_grad()
def slot_loss(model: XVLA, domain_id: int, source: Source, seed: int) -> float:
    """Training loss of an existing slot on samples with features, with noise fixed by `seed`."""
    assert source.features is not None
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(source.action.shape, generator=generator)
    t = objective.stratified_times(torch.rand(1, generator=generator), len(source))
    device = next(model.parameters()).device
    model.eval()
    total = 0.0
    for start in range(0, len(source), BATCH):
        part = slice(start, start + BATCH)
        terms = model(
            domain_id=torch.tensor([domain_id], device=device),
            proprio=source.proprio[part].to(device),
            action=source.action[part].to(device),
            noise=noise[part].to(device),
            t=t[part].to(device),
            features=(source.features[0][part].to(device), source.features[1][part].to(device)),
        )
        total += float(sum(terms.values())) * len(noise[part])
    return total / len(source)
