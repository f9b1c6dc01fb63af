"""One robot's rows: the only numbers that move, whatever the optimizer does, and no other robot notices."""

import pytest
import torch
from adapt_helpers import predicted, small_batch, small_model
from torch import Tensor

from xvla_platform.adapt.frozen import assert_unmoved, frozen_digest
from xvla_platform.adapt.trainables import build_optimizer, select_trainables
from xvla_platform.errors import RefusedError
from xvla_platform.modelling.slot import (
    SLOT_MODULES,
    close_slot,
    mean_rows,
    open_slot,
    random_rows,
    read_rows,
    table,
    write_rows,
)
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.specs.plan import Group, Stage

MINE = 3
OTHERS = (0, 1, 2, 4, 5)
PROMPT: dict[Group, float] = {"soft_prompts": 1e-2, "action_heads": 1e-2}


def weights(model: XVLA) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def train(model: XVLA, steps: int = 3, weight_decay: float = 0.5) -> None:
    """Steps of our own optimizer on row `MINE`, on batches of that robot."""
    stage = Stage(name="prompt", steps=steps, warmup_steps=0, lr=PROMPT, weight_decay=weight_decay)
    optimizer = build_optimizer(select_trainables(model, stage), stage)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"]
    for step in range(steps):
        optimizer.zero_grad()
        torch.stack(list(model(**small_batch([MINE], model, step)).values())).sum().backward()
        optimizer.step()


def test_open_and_close_change_nothing() -> None:
    """Opening and closing gives the same names and bits, and answers are equal while it is open."""
    model = small_model()
    before, answers = weights(model), [predicted(model, [d]) for d in range(6)]
    slot = open_slot(model, MINE)
    assert all(torch.equal(a, predicted(model, [d])) for d, a in enumerate(answers))
    close_slot(model, slot)
    assert equal(before, weights(model))
    assert all(torch.equal(a, predicted(model, [d])) for d, a in enumerate(answers))


def test_only_five_rows_get_gradients() -> None:
    """Whole tables, the trunk and the encoder have none, and the optimizer holds 5 tensors of one slot."""
    model = small_model()
    open_slot(model, MINE)
    stage = Stage(name="prompt", steps=1, warmup_steps=0, lr=PROMPT)
    trainables = select_trainables(model, stage)
    assert {t.name for t in trainables} == {f"{name}.row" for name in SLOT_MODULES}
    assert sum(t.parameter.numel() for t in trainables) == model.config.slot_numbers
    torch.stack(list(model(**small_batch([MINE], model)).values())).sum().backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {t.name for t in trainables}
    assert {name for name, p in model.named_parameters() if p.requires_grad} == with_gradient
    assert all(bool(t.parameter.grad.any()) for t in trainables if t.parameter.grad is not None)


def test_other_robots_do_not_notice() -> None:
    """After training with weight decay every other row and every other robot's answer has the same bits."""
    model = small_model()
    before, answers = weights(model), {d: predicted(model, [d]) for d in range(6)}
    slot = open_slot(model, MINE)
    train(model)
    during = {d: predicted(model, [d]) for d in OTHERS}
    close_slot(model, slot)
    for d in OTHERS:
        assert torch.equal(answers[d], during[d])
        assert torch.equal(answers[d], predicted(model, [d]))
        assert torch.equal(predicted(model, [d] * 4), predicted(small_model(), [d] * 4))
    assert not torch.allclose(answers[MINE], predicted(model, [MINE]))
    for name, tensor in weights(model).items():
        if name.removesuffix(".weight") in SLOT_MODULES:
            assert torch.equal(tensor[list(OTHERS)], before[name][list(OTHERS)])
            assert not torch.equal(tensor[MINE], before[name][MINE])
        else:
            assert torch.equal(tensor, before[name]), name


def test_decay_never_touches_a_row() -> None:
    """A slot is an address: shrinking it towards zero would be a preference for the mean robot."""
    first, second = small_model(), small_model()
    for model, decay in ((first, 0.0), (second, 0.9)):
        slot = open_slot(model, MINE)
        train(model, weight_decay=decay)
        close_slot(model, slot)
    assert equal(weights(first), weights(second))


def test_mixed_robots_equal_single_ones() -> None:
    """Four robots in one batch are answered as each alone; open or closed, [1] equals [B]."""
    model = small_model()
    mixed = [0, MINE, 5, 1]
    for opened in (False, True):
        if opened:
            open_slot(model, MINE)
        together = predicted(model, mixed)
        for row, domain in enumerate(mixed):
            torch.testing.assert_close(together[row], predicted(model, [domain] * 4)[row], atol=1e-6, rtol=1e-6)
            torch.testing.assert_close(together[row], predicted(model, [domain])[row], atol=2e-6, rtol=2e-6)
    assert float((predicted(model, [0]) - predicted(model, [5])).abs().max()) > 1e-2


def test_a_mixed_batch_trains_its_own_samples_only() -> None:
    """Samples of other robots in the batch leave no trace in the row's gradient."""
    model = small_model()
    slot = open_slot(model, MINE)
    for row in slot.rows.values():
        row.requires_grad_(True)
    torch.stack(list(model(**small_batch([0, 1, 2, 4], model)).values())).sum().backward()
    assert all(row.grad is None or not row.grad.any() for row in slot.rows.values())


def test_rows_are_copied_averaged_and_drawn() -> None:
    """Initialisations: a copy is no view, the mean is the mean, random rows have a fresh table's spread."""
    model = small_model()
    rows = read_rows(model, 1)
    write_rows(model, MINE, rows)
    assert torch.equal(predicted(model, [1]), predicted(model, [MINE]))
    rows[SLOT_MODULES[0]].zero_()
    assert table(model, SLOT_MODULES[0])[1].any()
    mean = mean_rows(model, [0, 2])
    for name in SLOT_MODULES:
        torch.testing.assert_close(mean[name], (table(model, name)[0] + table(model, name)[2]) / 2)
    drawn, again, other = random_rows(model, 0), random_rows(model, 0), random_rows(model, 1)
    assert all(torch.equal(drawn[name], again[name]) for name in SLOT_MODULES)
    assert not torch.equal(drawn[SLOT_MODULES[0]], other[SLOT_MODULES[0]])
    for name in SLOT_MODULES:
        fresh = table(small_model(seed=7), name)
        assert float(drawn[name].std()) == pytest.approx(float(fresh.std()), rel=0.25)


def test_what_moved_is_refused() -> None:
    """The proof of freezing sees one changed bit anywhere, and sees through open slots."""
    model = small_model()
    before = frozen_digest(model, MINE)
    slot = open_slot(model, MINE)
    assert frozen_digest(model, MINE) == before
    train(model)
    assert frozen_digest(model, MINE) == before
    close_slot(model, slot)
    assert frozen_digest(model, MINE) == before
    with torch.no_grad():
        model.transformer.pos_emb[0, 5, 3] += 1e-6
    after = frozen_digest(model, MINE)
    assert frozen_digest(model, MINE, tables_only=True) == frozen_digest(small_model(), MINE, tables_only=True)
    with pytest.raises(RefusedError, match="stage prompt changed weights that it had frozen"):
        assert_unmoved(before, after, "prompt")
    with torch.no_grad():
        table(model, SLOT_MODULES[0])[2, 0] += 1e-6
    assert frozen_digest(model, MINE, tables_only=True) != frozen_digest(small_model(), MINE, tables_only=True)
