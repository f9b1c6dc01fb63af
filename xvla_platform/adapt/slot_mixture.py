"""A learned mixture of existing slots: one softmax weight a slot, fitted by gradient on cached features.

A slot is a point in the tables, and the mixture is linear in them: row = sum of weight x row. With a few weights to
learn, and none of the rows' numbers, it cannot leave what the base has learned, and a short fit cannot overfit.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from xvla_platform.adapt.slot_probe import loss_of, slot_loss
from xvla_platform.adapt.sources import Source
from xvla_platform.modelling.objective import stratified_times
from xvla_platform.modelling.slot import close_slot, open_slot, read_rows, write_rows
from xvla_platform.modelling.xvla import XVLA

STEPS = 60
BATCH = 32
RATE = 0.1
MEASURE_EVERY = 10
FIRST = 2.0  # how much more the logit of the best slot starts with: 7.4 times the weight of any other


def mix(model: XVLA, shares: Mapping[int, float]) -> dict[str, Tensor]:
    """Rows that are the weighted sum of existing slots' rows."""
    every = {domain: read_rows(model, domain) for domain in shares}
    names = next(iter(every.values()))
    return {
        name: torch.stack([share * every[domain][name] for domain, share in shares.items()]).sum(0) for name in names
    }


def fit_mixture(
    model: XVLA, domain_id: int, ranking: Sequence[tuple[int, float]], probe: Source, seed: int
) -> dict[int, float]:
    """Weights of the existing slots, which sum to one, with the lowest loss met on the probe; the largest first.

    Args:
        domain_id: The row that takes the mixture while it is measured.
        ranking: Existing slots with their loss on the probe, the lowest first.
    """
    if len(ranking) == 1:
        return {ranking[0][0]: 1.0}
    domains = [domain for domain, _ in ranking]
    rows = {name: torch.stack([read_rows(model, domain)[name] for domain in domains]) for name in read_rows(model, 0)}
    logits = torch.zeros(len(domains))
    logits[0] = FIRST
    logits.requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=RATE)
    generator = torch.Generator().manual_seed(seed)
    # The best single slot is a mixture too: what does not beat it is not taken.
    best, best_loss = torch.eye(len(domains))[0], ranking[0][1]
    model.eval()
    for step in range(STEPS + 1):
        if step % MEASURE_EVERY == 0:
            weights = logits.detach().softmax(0)
            write_rows(model, domain_id, _mixed(rows, weights))
            loss = slot_loss(model, domain_id, probe, seed)
            if loss < best_loss:
                best, best_loss = weights, loss
        if step < STEPS:
            optimizer.zero_grad()
            logits.grad = _gradient(model, domain_id, rows, logits, probe, generator)
            optimizer.step()
    shares = sorted(zip(domains, best.tolist(), strict=True), key=lambda pair: -pair[1])
    return {domain: share for domain, share in shares if share > 0.0}


def _gradient(
    model: XVLA,
    domain_id: int,
    rows: Mapping[str, Tensor],
    logits: Tensor,
    probe: Source,
    generator: torch.Generator,
) -> Tensor:
    """Gradient of one batch's loss with respect to the logits: through the mixed rows, which are linear in them."""
    weights = logits.softmax(0)
    mixed = _mixed(rows, weights)
    write_rows(model, domain_id, {name: row.detach() for name, row in mixed.items()})
    chosen = torch.randint(len(probe), (min(BATCH, len(probe)),), generator=generator)
    noise = torch.randn((len(chosen), *probe.action.shape[1:]), generator=generator)
    t = stratified_times(torch.rand(1, generator=generator), len(chosen))
    slot = open_slot(model, domain_id)
    try:
        loss = loss_of(model, domain_id, probe, chosen, noise, t)
        of_rows = torch.autograd.grad(loss, list(slot.rows.values()), allow_unused=True)
    finally:
        close_slot(model, slot)
    through = [(mixed[name] * g).sum() for name, g in zip(slot.rows, of_rows, strict=True) if g is not None]
    (gradient,) = torch.autograd.grad(torch.stack(through).sum(), logits)
    return gradient


def _mixed(rows: Mapping[str, Tensor], weights: Tensor) -> dict[str, Tensor]:
    """Rows [K, D] of every table under weights [K]."""
    return {name: torch.tensordot(weights.to(stack), stack, dims=1) for name, stack in rows.items()}
