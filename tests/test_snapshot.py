"""Checkpoints: which is the newest, which weights are kept, and an optimiser that goes on as the one that was saved."""

import math
from pathlib import Path

import pytest
import torch

from xvla_platform.adapt.keeping import keep_weights, new_state
from xvla_platform.adapt.snapshot import load_newest, restore, save_snapshot, snapshots
from xvla_platform.adapt.trainables import Trainable


def _stepped(parameter: torch.nn.Parameter, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        (parameter**2).sum().backward()
        optimizer.step()


def _there_and_back(tmp_path: Path, device: str, fused: bool) -> torch.device:
    """Steps 1-3, save, restore into a fresh optimiser, steps 4-5; the same as five in a row. Where `step` lies."""

    def fresh() -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
        parameter = torch.nn.Parameter(torch.arange(4.0, device=device))
        return parameter, torch.optim.AdamW([parameter], lr=0.1, fused=fused)

    whole, optimizer = fresh()
    _stepped(whole, optimizer, 5)
    first, optimizer = fresh()
    _stepped(first, optimizer, 3)
    trainable = Trainable(name="rows", group="soft_prompts", parameter=first, decay=True)
    save_snapshot(tmp_path, stage=0, step=3, state={}, trainables=[trainable], best={}, average={}, optimizer=optimizer)
    second, optimizer = fresh()
    snapshot = load_newest(tmp_path)
    assert snapshot is not None
    restore(snapshot, [Trainable(name="rows", group="soft_prompts", parameter=second, decay=True)], optimizer)
    place: torch.device = optimizer.state[second]["step"].device
    _stepped(second, optimizer, 2)
    assert torch.equal(second, whole)
    return place


@pytest.mark.parametrize("fused", [False, True])
def test_a_restored_optimiser_goes_on(tmp_path: Path, fused: bool) -> None:
    assert _there_and_back(tmp_path, "cpu", fused).type == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("fused", [False, True])
def test_the_step_lies_where_the_optimiser_counts(tmp_path: Path, fused: bool) -> None:
    """A fused AdamW refuses a step counter on the CPU beside a parameter on the GPU."""
    assert _there_and_back(tmp_path, "cuda", fused).type == ("cuda" if fused else "cpu")


def test_checkpoints_are_told_apart_by_their_numbers(tmp_path: Path) -> None:
    """The tenth stage is later than the second, though its name comes before it."""
    parameter = torch.nn.Parameter(torch.zeros(2))
    trainable = Trainable(name="rows", group="soft_prompts", parameter=parameter, decay=True)
    optimizer = torch.optim.AdamW([parameter])
    for stage in (2, 10):
        save_snapshot(
            tmp_path, stage=stage, step=4, trainables=[trainable], optimizer=optimizer, state={}, best={}, average={}
        )
    assert [path.name.split("-")[1] for path in snapshots(tmp_path)] == ["2", "10"]
    newest = load_newest(tmp_path)
    assert newest is not None
    assert newest.stage == 10


@pytest.mark.parametrize("robots", [("one",), ("one", "two")])
def test_an_error_that_is_no_number_is_never_the_best(robots: tuple[str, ...]) -> None:
    """What is measured first is kept whatever it is; after that only a number can be better."""
    trainables = [
        Trainable(name=robot, group="soft_prompts", parameter=torch.nn.Parameter(torch.zeros(1)), decay=True)
        for robot in robots
    ]
    state, kept, steps = new_state(), {}, []
    for done, error in enumerate((math.nan, 2.0, math.nan, 3.0, 1.0, math.inf)):
        for trainable in trainables:
            trainable.parameter.data.fill_(done)
        keep_weights(
            dict.fromkeys(robots, error),
            done,
            which="best",
            trainables=trainables,
            owners={robot: robot for robot in robots},
            state=state,
            kept=kept,
        )
        steps.append(state["best_step"]["one"])
        assert all(float(tensor) == steps[-1] for tensor in kept.values())
    assert steps == [0, 1, 1, 1, 4, 4]
