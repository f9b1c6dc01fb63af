"""What starts of a slot are measured on: evenly spaced samples with their features, and the loss of a slot on them."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from xvla_platform.adapt.features import encode_batch
from xvla_platform.adapt.robot_data import Split
from xvla_platform.adapt.sources import Source, frames_of, take
from xvla_platform.modelling import objective
from xvla_platform.modelling.processor import Processor
from xvla_platform.modelling.xvla import XVLA

PROBE = 256  # samples that each slot is measured on
BATCH = 64


def probe_of(split: Split, model: XVLA, processor: Processor) -> Source:
    """At most `PROBE` evenly spaced samples of a split, with their features."""
    rows = np.unique(np.linspace(0, len(split.source) - 1, PROBE).astype(int))
    probe = take(split.source, rows)
    if probe.features is not None:
        return probe
    parts = []
    for start in range(0, len(rows), BATCH):
        part = slice(start, start + BATCH)
        frames = frames_of(split.samples, processor, rows[part])
        parts.append(encode_batch(model, frames, probe.tokens[probe.instruction_of[part]], processor))
    vlm, aux = (torch.cat(features) for features in zip(*parts, strict=True))
    return replace(probe, features=(vlm, aux))


@torch.no_grad()
def slot_loss(model: XVLA, domain_id: int, source: Source, seed: int) -> float:
    """Training loss of a slot on samples with features, with noise fixed by `seed`."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(source.action.shape, generator=generator)
    t = objective.stratified_times(torch.rand(1, generator=generator), len(source))
    model.eval()
    total = 0.0
    for start in range(0, len(source), BATCH):
        rows = torch.arange(start, min(start + BATCH, len(source)))
        total += float(loss_of(model, domain_id, source, rows, noise[rows], t[rows])) * len(rows)
    return total / len(source)


def loss_of(model: XVLA, domain_id: int, source: Source, rows: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Mean training loss over some rows of a source with features; noise [n, T, A] and times t [n] are given."""
    assert source.features is not None
    device = next(model.parameters()).device
    terms = model(
        domain_id=torch.tensor([domain_id], device=device),
        proprio=source.proprio[rows].to(device),
        action=source.action[rows].to(device),
        noise=noise.to(device),
        t=t.to(device),
        features=(source.features[0][rows].to(device), source.features[1][rows].to(device)),
    )
    return torch.stack(list(terms.values())).sum()
