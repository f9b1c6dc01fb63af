"""From chunks to commands: points in time, blending on the group, latency, and rows in the recorded convention."""

import numpy as np
import pytest
from data_helpers import gripper, make_spec, position, rotation
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from xvla_platform.closed_loop.execution import Controller, Execution, between, execution_of, mean
from xvla_platform.data.canonical import absolute_targets, recorded_actions
from xvla_platform.data.resampling import sample_chunks
from xvla_platform.errors import XvlaError
from xvla_platform.policy.policy import ActionChunk

SPEC = make_spec(hz=20.0)
KINDS = {"position": "position", "rotation": "rotation", "gripper": "gripper"}


def chunk_of(values: dict[str, np.ndarray], horizon_s: float = 1.0) -> ActionChunk:
    """A chunk of targets by field, in declared units, evenly over the horizon."""
    count = len(next(iter(values.values())))
    columns = np.concatenate(list(values.values()), axis=1)
    times = np.arange(1, count + 1) * horizon_s / count
    return ActionChunk(times=times, fields=values, columns=columns, model=columns.astype(np.float32))


def straight(start: float, stop: float, anchors: int = 10) -> ActionChunk:
    """Moves x evenly from `start` to `stop` and turns about z by as many rad."""
    path = start + (stop - start) * np.arange(1, anchors + 1)[:, None] / anchors
    zeros = np.zeros((anchors, 2))
    return chunk_of(
        {
            "position": np.concatenate([path, zeros], axis=1),
            "rotation": np.concatenate([zeros, path], axis=1),
            "gripper": np.full((anchors, 1), 0.08),
        }
    )


def xs(controller: Controller, ticks: range) -> list[float]:
    """The commanded x of some ticks; the turn about z must be the same number."""
    out = []
    for tick in ticks:
        point = controller.command(tick)
        assert Rotation.from_matrix(point["rotation"][0]).as_rotvec()[2] == pytest.approx(point["position"][0, 0])
        out.append(float(point["position"][0, 0]))
    return out


def test_commands_are_the_chunks_points_one_tick_later() -> None:
    """20 Hz, ten targets in a second: tick 1 commands the first target, tick 2 halfway to the second."""
    controller = Controller(SPEC, Execution(execute=20))
    controller.add(straight(0.0, 1.0), 0)
    assert xs(controller, range(20)) == pytest.approx([0.1, *(np.arange(2, 21) / 20)])


def test_a_recorded_episode_is_commanded_as_it_was_recorded() -> None:
    """What training cuts into chunks is what execution puts together again, at every rate and start."""
    rng = np.random.default_rng(0)
    moves = np.cumsum(rng.normal(0, 0.02, (41, 7)), axis=0)
    moves[:, 6] = 0.04 + 0.04 * np.sign(np.sin(np.arange(41) / 5))
    states, actions = moves[:-1], moves[1:]
    targets = absolute_targets(SPEC, states, actions)
    for start, anchors in ((0, 20), (7, 20)):
        sampled = sample_chunks(targets, np.array([start]), 20.0, 1.0, anchors, "hold")
        values = {
            "position": sampled.values["position"][0],
            "rotation": Rotation.from_matrix(sampled.values["rotation"][0]).as_euler("xyz"),
            "gripper": 0.08 - 0.08 * sampled.values["gripper"][0],
        }
        controller = Controller(SPEC, Execution(execute=20))
        controller.add(chunk_of(values), 0)
        for tick in range(20):
            row = recorded_actions(SPEC, controller.command(tick), states[start + tick])[0]
            np.testing.assert_allclose(row, actions[start + tick], atol=1e-9)


def test_relative_actions_are_written_against_the_state_of_their_tick() -> None:
    """The target is absolute; the row is what leads there from where the robot is now."""
    relative = {"reference": "relative", "axes": "frame"}
    spec = make_spec(action=[position(**relative), rotation(**relative), gripper()], hz=20.0)
    controller = Controller(spec, Execution(execute=20))
    controller.add(straight(0.0, 1.0), 0)
    controller.command(0)
    point = controller.command(1)
    state = np.array([0.04, 0.2, 0.0, 0.0, 0.0, 0.03, 0.08])
    row = recorded_actions(spec, point, state)[0]
    np.testing.assert_allclose(row, [0.06, -0.2, 0.0, 0.0, 0.0, 0.07, 0.08], atol=1e-9)


def test_a_chunk_begins_at_what_was_commanded_for_its_moment() -> None:
    """Between the observation and the first target of a later chunk the command passes on from the one before."""
    controller = Controller(SPEC, Execution(execute=10))
    controller.add(straight(0.0, 1.0), 0)
    before = xs(controller, range(10))[-1]
    controller.add(straight(0.5, 2.5), 10)
    first, second = xs(controller, range(10, 12))
    assert second == pytest.approx(0.7)
    assert first == pytest.approx((before + 0.7) / 2)


def test_latency_goes_on_with_the_old_chunk_and_enters_the_new_one_where_it_stands() -> None:
    """Observed at tick 6, in force from tick 10 on: at its fifth tick, not at its first."""
    execution = Execution(execute=10, latency=4)
    assert [tick for tick in range(40) if execution.observes_at(tick)] == [0, 6, 16, 26, 36]
    controller = Controller(SPEC, execution)
    controller.add(straight(0.0, 1.0), 0)
    commands = xs(controller, range(6))
    controller.add(straight(1.0, 2.0), 6)
    commands += xs(controller, range(6, 14))
    assert commands[6:10] == pytest.approx([0.35, 0.40, 0.45, 0.50])
    assert commands[10:] == pytest.approx([1.25, 1.30, 1.35, 1.40])
    late = Controller(SPEC, Execution(execute=10))
    late.add(straight(0.0, 1.0), 0)
    xs(late, range(10))
    late.add(straight(1.0, 2.0), 10)
    assert xs(late, range(10, 14))[1] == pytest.approx(1.10)


@pytest.mark.parametrize("blend", ["none", "linear", "exponential"])
def test_equal_chunks_blend_to_themselves(blend: str) -> None:
    """Where every chunk says the same, blending changes nothing."""
    controller = Controller(SPEC, Execution(execute=5, blend=blend))  # type: ignore[arg-type]
    for start in range(0, 40, 5):
        controller.add(straight(start / 20, start / 20 + 1), start)
        expected = [0.1 if tick == 0 else (tick + 1) / 20 for tick in range(start, start + 5)]
        assert xs(controller, range(start, start + 5)) == pytest.approx(expected)


def test_linear_blending_fades_evenly() -> None:
    """Of two constant chunks the mean moves by equal steps, and ends at the new one with the next chunk."""
    controller = Controller(SPEC, Execution(execute=4, blend="linear"))
    controller.add(straight(0.0, 0.0), 0)
    xs(controller, range(4))
    controller.add(straight(1.0, 1.0), 4)
    # The new chunk itself starts from what was commanded: 0.5 at its first tick, 1 from its first target on.
    assert xs(controller, range(4, 8)) == pytest.approx([0.5 * 1 / 5, 2 / 5, 3 / 5, 4 / 5])
    controller.add(straight(1.0, 1.0), 8)
    assert xs(controller, range(8, 12))[1:] == pytest.approx([1.0, 1.0, 1.0])


def test_exponential_blending_weighs_by_age() -> None:
    """Three chunks that reach the moment weigh 1, 1/e and 1/e²."""
    controller = Controller(SPEC, Execution(execute=5, blend="exponential"))
    for start, value in ((0, 0.0), (5, 1.0), (10, 2.0)):
        controller.add(straight(value, value), start)
        last = xs(controller, range(start, start + 5))[-1]
    weights = np.exp([0.0, -1.0, -2.0])
    assert last == pytest.approx(float(weights @ [2.0, 1.0, 0.0]) / weights.sum())


@settings(max_examples=60, deadline=None)
@given(
    vectors=st.lists(st.tuples(*[st.floats(-1.2, 1.2)] * 3), min_size=1, max_size=4),
    weights=st.lists(st.floats(0.05, 5.0), min_size=4, max_size=4),
    turn=st.tuples(*[st.floats(-2.0, 2.0)] * 3),
    share=st.floats(0.0, 1.0),
)
def test_blending_is_on_the_group(
    vectors: list[tuple[float, ...]], weights: list[float], turn: tuple[float, ...], share: float
) -> None:
    """A blend is a rotation, turns with its inputs, needs no common scale of weights, and of two lies on their arc."""
    turned = Rotation.from_rotvec(turn)
    rotations = [Rotation.from_rotvec(vector) for vector in vectors]

    def blend(some: list[Rotation], scale: float = 1.0) -> Rotation:
        points = [{"rotation": each.as_matrix()[None]} for each in some]
        mixed = mean(points, [scale * weight for weight in weights[: len(some)]], {"rotation": "rotation"})
        return Rotation.from_matrix(mixed["rotation"][0])

    mixed = blend(rotations)
    assert np.allclose(mixed.as_matrix() @ mixed.as_matrix().T, np.eye(3), atol=1e-9)
    assert (turned * mixed).approx_equal(blend([turned * each for each in rotations]), atol=1e-6)
    assert mixed.approx_equal(blend(rotations, scale=3.0), atol=1e-6)
    first, second = rotations[0], rotations[-1]
    part = between(
        {"rotation": first.as_matrix()[None]}, {"rotation": second.as_matrix()[None]}, share, {"rotation": "rotation"}
    )
    angle = (first.inv() * Rotation.from_matrix(part["rotation"][0])).magnitude()
    assert angle == pytest.approx(share * (first.inv() * second).magnitude(), abs=1e-6)


def test_what_a_chunk_cannot_cover_is_refused() -> None:
    """A chunk of 20 ticks: at least one and at most all are executed, and latency must fit in between."""
    assert execution_of(SPEC) == Execution(execute=20)
    assert execution_of(SPEC, latency_ms=150) == Execution(execute=17, latency=3)
    assert execution_of(SPEC, blend="linear") == Execution(execute=10, blend="linear")
    assert execution_of(SPEC, execute_s=0.25, latency_ms=200, blend="linear") == Execution(
        execute=5, latency=4, blend="linear"
    )
    assert execution_of(SPEC, execute_steps=7, latency_ms=50.0001).latency == 2
    assert execution_of(SPEC, execute_steps=7, latency_ms=50).latency == 1
    for options, said in (
        ({"execute_steps": 21}, "allowed: 1 to 20 ticks"),
        ({"execute_s": 0.0}, "is not part of a chunk"),
        ({"execute_s": -1.0}, "is not part of a chunk"),
        ({"execute_s": 0.5, "execute_steps": 10}, "give one of them"),
        ({"execute_steps": 5, "latency_ms": 250}, "up to 4 ticks where 5 of a chunk's 20 are executed"),
        ({"execute_steps": 18, "latency_ms": 150}, "up to 2 ticks"),
        ({"latency_ms": float("nan")}, "is not a time"),
        ({"blend": "cubic"}, "unknown blending; found cubic"),
    ):
        with pytest.raises(XvlaError, match=said):
            execution_of(SPEC, **options)  # type: ignore[arg-type]
