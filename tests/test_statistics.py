"""Statistics per declared field, and the refusal of numbers that cannot be meant."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_helpers import columns, gripper, joints, make_spec, position, read_dataset, rotation

from xvla_platform.data.binding import Binding
from xvla_platform.data.reader import DatasetInfo, Episode
from xvla_platform.data.statistics import compute_statistics
from xvla_platform.errors import XvlaError
from xvla_platform.specs.action_space import action_space

LENGTHS = (12, 9, 15)


class Memory:
    """A reader of arrays in memory, counting what is read."""

    root = Path("memory")

    def __init__(self, edit: Any = None) -> None:
        self.episodes = [Episode(index=i, length=n, instruction="go") for i, n in enumerate(LENGTHS)]
        self.info = DatasetInfo(fps=10.0, features={}, episodes=3, frames=sum(LENGTHS))
        self.reads: list[int] = []
        self._edit = edit

    def columns(self, episode: int, keys: Any) -> dict[str, np.ndarray]:
        self.reads.append(episode)
        found = columns(LENGTHS[episode], episode)
        if self._edit is not None:
            self._edit(episode, found)
        return {key: found[key] for key in keys}


def statistics_of(edit: Any = None, **more: Any) -> dict[str, Any]:
    return compute_statistics(Memory(edit), make_spec(**more))  # type: ignore[arg-type]


def test_numbers_of_every_field_in_one_pass() -> None:
    reader = Memory()
    found = compute_statistics(reader, make_spec())  # type: ignore[arg-type]
    assert reader.reads == [0, 1, 2]
    everything = np.concatenate([columns(n, i)["action"] for i, n in enumerate(LENGTHS)])
    for field, slot in (("position", slice(0, 3)), ("rotation", slice(3, 6)), ("gripper", slice(6, 7))):
        entry, values = found["action"][field], everything[:, slot]
        assert entry["mean"] == pytest.approx(values.mean(axis=0))
        assert entry["std"] == pytest.approx(values.std(axis=0))
        assert entry["min"] == pytest.approx(values.min(axis=0))
        assert entry["q99"] == pytest.approx(np.quantile(values, 0.99, axis=0))
        assert entry["count"] == 36
    assert found["frames"] == 36
    assert json.loads(json.dumps(found)) == found


def test_canonical_numbers_are_si_and_closedness() -> None:
    millimetres = make_spec(
        [position("mm"), rotation(unit="deg"), gripper()], [position("mm"), rotation(unit="deg"), gripper()]
    )
    found = compute_statistics(Memory(), millimetres)  # type: ignore[arg-type]
    recorded, canonical = found["action"]["position"], found["canonical"]["action"]["position"]
    assert (recorded["unit"], canonical["unit"]) == ("mm", "m")
    assert np.array(canonical["mean"]) * 1000 == pytest.approx(recorded["mean"])
    assert found["canonical"]["proprio"]["gripper"]["unit"] == "closedness"
    assert "rotation" not in found["canonical"]["action"]


def test_canonical_actions_are_absolute_targets() -> None:
    relative = {"reference": "relative", "axes": "frame"}
    found = statistics_of(action=[position(**relative), rotation(**relative), gripper()])
    both = [columns(n, i) for i, n in enumerate(LENGTHS)]
    summed = np.concatenate([c["observation.state"][:, :3] + c["action"][:, :3] for c in both])
    assert found["canonical"]["action"]["position"]["mean"] == pytest.approx(summed.mean(axis=0))


@pytest.mark.parametrize("kind", ["mean_std", "min_max", "quantile"])
def test_the_binding_normalizes_with_them(kind: str) -> None:
    spec = make_spec(action=[position(normalization=kind), rotation(), gripper()])
    statistics = json.loads(json.dumps(compute_statistics(Memory(), spec)))  # type: ignore[arg-type]
    binding = Binding(spec, action_space("ee6d"), "rot6d_columns", statistics)
    both = [columns(n, i) for i, n in enumerate(LENGTHS)]
    state = np.concatenate([c["observation.state"] for c in both])
    model = binding.encode(binding.targets(state, np.concatenate([c["action"] for c in both])))[:, :3]
    if kind == "mean_std":
        assert model.mean(axis=0) == pytest.approx(0, abs=1e-4)
        assert model.std(axis=0) == pytest.approx(1, abs=1e-4)
    else:
        assert np.abs(model).max() == pytest.approx(1, abs=0.2 if kind == "quantile" else 1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_none_is_named(value: float) -> None:
    def edit(episode: int, found: dict[str, np.ndarray]) -> None:
        if episode == 1:
            found["action"][4, 1] = value

    with pytest.raises(XvlaError, match=r"memory: action\.position\[1\]: is not a finite number in episode 1, frame 4"):
        statistics_of(edit)


def test_a_tool_held_upright_is_allowed() -> None:
    def edit(episode: int, found: dict[str, np.ndarray]) -> None:
        found["action"][:, 3:6] = [np.pi, 0, 0]

    assert statistics_of(edit)["action"]["rotation"]["std"] == pytest.approx([0, 0, 0], abs=1e-12)


def test_sizes_that_do_not_add_up_and_no_episode_are_refused() -> None:
    with pytest.raises(XvlaError, match="the declared fields take 6 numbers, column 'action' has 7"):
        statistics_of(action=[position(), rotation()])
    with pytest.raises(XvlaError, match="no episode"):
        compute_statistics(Memory(), make_spec(), [])  # type: ignore[arg-type]


def test_a_joint_that_hardly_moves_stays_a_number() -> None:
    """A joint whose 1 % and 99 % lie 0.0005 rad apart: elsewhere, its value is -3200 by plain division."""

    def edit(episode: int, found: dict[str, np.ndarray]) -> None:
        for column in found.values():
            column[:, 5] = 1.57 + 2.5e-4 * np.sin(np.arange(len(column)))

    fields = [joints(7, normalization="quantile")]
    spec = make_spec(fields, fields)
    statistics = json.loads(json.dumps(compute_statistics(Memory(edit), spec)))  # type: ignore[arg-type]
    entry = statistics["canonical"]["proprio"]["joints"]
    elsewhere = np.full((1, 7), 0.5)
    elsewhere[0, 5] = 0.77
    assert 2 * (0.77 - entry["q01"][5]) / (entry["q99"][5] - entry["q01"][5]) - 1 < -3190

    def told() -> float:
        binding = Binding(spec, action_space("auto", real_dim=7), "rot6d_columns", statistics)
        chunk = binding.encode(binding.targets(elsewhere, elsewhere))
        assert binding.to_columns(chunk, elsewhere[0]) == pytest.approx(elsewhere, abs=1e-5)
        return float(binding.proprio(elsewhere)[0, 5])

    assert told() == pytest.approx((0.77 - 1.57) / 0.02, abs=0.1)  # never recorded: a step of 0.02 rad counts 1
    entry["min"][5] = 0.77
    assert told() == pytest.approx(-10, abs=0.01)  # recorded once: it lies at the far end


def test_the_guard_leaves_numbers_that_move_alone() -> None:
    """Scaling to the declared quantiles, exactly, where they span a useful part of the field's unit."""
    spec = make_spec(action=[position(normalization="quantile"), rotation(), gripper()])
    statistics = compute_statistics(Memory(), spec)  # type: ignore[arg-type]
    entry = statistics["canonical"]["action"]["position"]
    binding = Binding(spec, action_space("ee6d"), "rot6d_columns", statistics)
    raw = np.zeros((2, 7))
    raw[0, :3], raw[1, :3] = entry["q01"], entry["q99"]
    assert binding.encode(binding.targets(raw, raw))[:, :3] == pytest.approx(np.array([[-1] * 3, [1] * 3]), abs=1e-5)
    assert entry["floor"] == 0.005


def test_statistics_without_their_floor_are_refused() -> None:
    spec = make_spec(action=[position(normalization="quantile"), rotation(), gripper()])
    statistics = compute_statistics(Memory(), spec)  # type: ignore[arg-type]
    del statistics["canonical"]["action"]["position"]["floor"]
    with pytest.raises(XvlaError, match="needs the dataset's statistics"):
        Binding(spec, action_space("ee6d"), "rot6d_columns", statistics)


def test_ignored_numbers_have_no_statistics() -> None:
    def edit(episode: int, found: dict[str, np.ndarray]) -> None:
        for column in found.values():
            column[:, 6] = np.nan

    unused = {"name": "pad", "kind": "ignored", "size": 1}
    found = statistics_of(
        edit, proprio=[position(), rotation(), unused], action=[position(), rotation(), {**unused, "value": 0}]
    )
    assert set(found["action"]) == set(found["proprio"]) == {"position", "rotation"}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_subset_of_a_real_dataset(tmp_path: Path) -> None:
    found = compute_statistics(read_dataset(tmp_path / "set"), make_spec(), [0, 2])
    assert (found["frames"], found["episodes"]) == (27, 2)


def test_numbers_that_overflow_are_refused() -> None:
    """A scale that is wrong by far would write infinity, which JSON has no word for."""

    def far(episode: int, found: dict[str, np.ndarray]) -> None:
        found["action"][:, 0] = np.linspace(-1e200, 1e200, len(found["action"]))

    with pytest.raises(XvlaError, match=r"action\.position: holds numbers too large to be measured; found 1e\+200"):
        statistics_of(far)
