"""A start by learned mixture: convex, repeatable, never worse than the best slot on what it was fitted to."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from adapt_helpers import small_model
from loop_helpers import make_source, processor_fixture  # noqa: F401

from xvla_platform.adapt.frozen import frozen_digest
from xvla_platform.adapt.initialise import as_prompt
from xvla_platform.adapt.slot_mixture import fit_mixture, mix
from xvla_platform.adapt.slot_probe import slot_loss
from xvla_platform.adapt.sources import Source, take
from xvla_platform.errors import XvlaError
from xvla_platform.modelling.processor import Processor
from xvla_platform.modelling.slot import read_rows, write_rows
from xvla_platform.modelling.xvla import XVLA

MINE, TEACHERS = 3, {0: 0.6, 1: 0.4}


def half_way(model: XVLA, processor: Processor) -> Source:
    """Samples of a robot that is a mixture of two others: its actions are what their mixed rows answer."""
    source = make_source(processor, cached=True, count=60)
    write_rows(model, MINE, mix(model, TEACHERS))
    assert source.features is not None
    answer = model.generate(
        domain_id=torch.tensor([MINE]),
        features=source.features,
        proprio=source.proprio,
        noise=torch.randn(source.action.shape, generator=torch.Generator().manual_seed(0)),
    )
    action = source.action.clone()
    action[..., : answer.shape[-1]] = answer
    return replace(source, action=action)


def test_a_robot_between_two_slots_is_found(processor: Processor) -> None:
    """The weights go to the two slots it was made of, and samples the fit has not seen gain as well."""
    model = small_model()
    with torch.no_grad():  # slots that differ as those of a trained base do
        model.transformer.action_decoder.fc.weight.mul_(8)
    source = half_way(model, processor)
    seen, held_out = take(source, np.arange(40)), take(source, np.arange(40, 60))
    before = frozen_digest(model, MINE)
    ranking = sorted(((domain, slot_loss(model, domain, seen, 0)) for domain in (0, 1, 2)), key=lambda pair: pair[1])
    shares = fit_mixture(model, MINE, ranking, seen, seed=0)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert min(shares.values()) >= 0.0
    assert shares == fit_mixture(model, MINE, ranking, seen, seed=0)
    assert frozen_digest(model, MINE) == before
    assert set(list(shares)[:2]) == set(TEACHERS)
    write_rows(model, MINE, mix(model, shares))
    assert slot_loss(model, MINE, seen, 0) < ranking[0][1]
    assert slot_loss(model, MINE, held_out, 0) < slot_loss(model, ranking[0][0], held_out, 0)


def test_a_mixture_that_does_not_beat_the_best_slot_is_that_slot(processor: Processor) -> None:
    """One slot alone, or one that answers perfectly, is taken bit for bit."""
    model = small_model()
    source = make_source(processor, cached=True, count=20)
    assert fit_mixture(model, MINE, [(2, 1.0)], source, seed=0) == {2: 1.0}
    shares = fit_mixture(model, MINE, [(2, 0.0), (0, 1.0)], source, seed=0)
    assert shares == {2: 1.0}
    assert all(torch.equal(row, read_rows(model, 2)[name]) for name, row in mix(model, shares).items())


@pytest.mark.parametrize("text", ["copy", "copy:", "copy:-1", "copy:x", "mean:2", "best", ""])
def test_what_is_no_start_is_refused(text: str) -> None:
    """With the starts that there are."""
    with pytest.raises(XvlaError, match="copy:ID"):
        as_prompt(text, "--init")


def test_starts_are_read() -> None:
    """`copy:4` and the plain names."""
    assert as_prompt("copy:4", "--init").copy_from == 4
    assert [as_prompt(name, "--init").init for name in ("mixture", "random")] == ["mixture", "random"]
