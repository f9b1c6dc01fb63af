"""Measures name the convention a motion was written in, and say nothing where it leaves no trace."""

import numpy as np
import pytest
from motion_helpers import HZ, LAG, lifts

from xvla_platform.data.rotations import from_matrix
from xvla_platform.measure import actions, columns, episodes, gripper, language, rotation, timing, units
from xvla_platform.measure.guess import LIKELY, SURE
from xvla_platform.measure.recording import sampled_episodes

MOTIONS = lifts()
POSITIONS = [motion.position for motion in MOTIONS]
TOLD = [motion.told_position for motion in MOTIONS]
TURNS = [motion.rotation for motion in MOTIONS]
TOLD_TURNS = [motion.told_rotation for motion in MOTIONS]


@pytest.mark.parametrize(("unit", "factor"), [("m", 1.0), ("cm", 100.0), ("mm", 1000.0)])
def test_the_unit_of_positions_is_seen_in_range_and_speed(unit: str, factor: float) -> None:
    guess = units.position_unit([values * factor for values in POSITIONS], HZ)
    assert guess.value == unit
    assert guess.confidence >= SURE


def test_positions_that_fit_no_unit_are_not_given_one() -> None:
    assert units.position_unit([values * 1e6 for values in POSITIONS], HZ).value is None
    assert units.position_unit([np.zeros((30, 3))], HZ).value is None
    box = [np.clip((values - 0.4) * 8, -1, 1) for values in POSITIONS]
    box[0][:3] = [[1, 1, 1], [-1, -1, -1], [1, -1, 1]]
    assert units.position_unit(box, HZ).confidence < LIKELY


@pytest.mark.parametrize("unit", ["rad", "deg"])
def test_the_unit_of_angles_is_seen(unit: str) -> None:
    guess = units.angle_unit([from_matrix(turn, "euler_xyz_extrinsic", unit) for turn in TURNS], HZ)
    assert guess.value == unit
    assert guess.confidence >= SURE


def test_joints_within_a_hundred_may_be_per_cent() -> None:
    within = [np.degrees(np.sin(values * 3)) for values in POSITIONS]
    assert units.joint_unit(within, HZ).confidence < SURE
    full = [np.clip(values * 400 - 150, -100, 100) for values in POSITIONS]
    assert units.joint_unit(full, HZ).value in ("percent", "deg")
    assert units.joint_unit(full, HZ).confidence < SURE


def test_episodes_of_another_scale_are_found() -> None:
    mixed = [values * (1000 if place in (2, 7) else 1) for place, values in enumerate(POSITIONS)]
    odd, ratio = units.scale_outliers(mixed)
    assert set(odd) == {2, 7}
    assert ratio == pytest.approx(1000, rel=0.3)
    assert units.scale_outliers(POSITIONS) == ({}, 1.0)


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("format", ["quaternion_xyzw", "quaternion_wxyz"])
def test_the_order_of_a_quaternion_is_likely_by_the_axis_and_sure_by_name(format: str, down: bool) -> None:
    values = [from_matrix(motion.rotation, format) for motion in lifts(down=down)]
    guess = rotation.quaternion_order(values)
    assert guess.value == format
    assert LIKELY <= guess.confidence < SURE
    named = rotation.quaternion_order(values, ["q" + letter for letter in format[-4:]])
    assert named.value == format
    assert named.confidence >= SURE


def test_a_quaternion_that_turns_about_a_horizontal_axis_is_never_named_with_certainty() -> None:
    tip = [np.einsum("ij,ljk,mk->lim", Y_UP, turn, Y_UP) for turn in TURNS]
    guess = rotation.quaternion_order([from_matrix(turn, "quaternion_xyzw") for turn in tip])
    assert guess.confidence < SURE


Y_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])


@pytest.mark.parametrize("format", ["rot6d_columns", "rot6d_interleaved"])
def test_both_6d_layouts_are_told_apart(format: str) -> None:
    guess = rotation.rot6d_layout([from_matrix(turn, format) for turn in TURNS])
    assert guess.value == format
    assert guess.confidence >= SURE


def test_formats_of_other_sizes() -> None:
    matrices = rotation.rotation_format([from_matrix(turn, "matrix") for turn in TURNS])
    assert matrices.value == ("matrix", None)
    named = rotation.rotation_format(
        [from_matrix(turn, "euler_xyz_extrinsic", "deg") for turn in TURNS], ["roll", "pitch", "yaw"], HZ
    )
    assert named.value == ("euler_xyz_extrinsic", "deg")
    assert named.confidence >= SURE
    unnamed = rotation.rotation_format([from_matrix(turn, "axis_angle", "rad") for turn in TURNS], None, HZ)
    assert unnamed.confidence < LIKELY  # small angles and small rotation vectors are the same numbers
    noise = [np.random.default_rng(0).normal(size=(40, 4)) for _ in range(4)]
    assert rotation.rotation_format(noise).value is None


@pytest.mark.parametrize("reading", ["absolute", "relative", "relative_to_first"])
def test_what_an_action_refers_to(reading: str) -> None:
    told = {
        "absolute": TOLD,
        "relative": [a - s for a, s in zip(TOLD, POSITIONS, strict=True)],
        "relative_to_first": [a - s[:1] for a, s in zip(TOLD, POSITIONS, strict=True)],
    }[reading]
    guess = actions.reference(POSITIONS, told, "position", TURNS)
    assert guess.value == reading
    assert guess.confidence >= SURE


@pytest.mark.parametrize("reading", ["absolute", "relative", "relative_to_first"])
def test_what_a_rotation_refers_to(reading: str) -> None:
    told = {
        "absolute": TOLD_TURNS,
        "relative": [s.transpose(0, 2, 1) @ a for a, s in zip(TOLD_TURNS, TURNS, strict=True)],
        "relative_to_first": [s[:1].transpose(0, 2, 1) @ a for a, s in zip(TOLD_TURNS, TURNS, strict=True)],
    }[reading]
    guess = actions.reference(TURNS, told, "rotation")
    assert guess.value == reading
    assert guess.confidence >= SURE


@pytest.mark.parametrize("sense", ["frame", "tool"])
def test_the_axes_of_a_step(sense: str) -> None:
    down = lifts(down=True)
    steps = [motion.told_position - motion.position for motion in down]
    if sense == "tool":
        steps = [np.einsum("lji,lj->li", m.rotation, step) for m, step in zip(down, steps, strict=True)]
    guess = actions.axes([m.position for m in down], steps, "position", [m.rotation for m in down])
    assert guess.value == sense
    assert guess.confidence >= LIKELY


def test_the_lag_is_counted_in_ticks() -> None:
    assert actions.lag_ticks(POSITIONS, TOLD).value == LAG
    late = [np.concatenate([np.repeat(values[:1], 5, axis=0), values[:-5]]) for values in TOLD]
    assert actions.lag_ticks(POSITIONS, late).value == LAG - 5


def test_an_action_that_is_the_state_is_seen_and_one_ahead_is_not() -> None:
    assert np.all(actions.equal_share(POSITIONS, POSITIONS) == 1)
    assert np.all(actions.equal_share(POSITIONS, TOLD) < 0.1)


def test_a_turned_frame_is_recovered() -> None:
    swapped = [values[:, [1, 0, 2]] for values in TOLD]
    turn, turned, straight = actions.frame_turn(POSITIONS, swapped, LAG)
    assert np.allclose(turn, [[0, 1, 0], [1, 0, 0], [0, 0, 1]], atol=0.05)
    assert turned > 0.95 > straight


def test_noise_is_no_action() -> None:
    random = np.random.default_rng(1)
    guess = actions.reference(POSITIONS, [random.normal(size=values.shape) for values in POSITIONS], "position", TURNS)
    assert guess.value is None


@pytest.mark.parametrize(("open", "closed"), [(0.0, 1.0), (1.0, 0.0), (0.08, 0.0), (0.0, 100.0)])
def test_which_end_of_a_gripper_is_closed(open: float, closed: float) -> None:
    states = [open + motion.gripper * (closed - open) for motion in MOTIONS]
    told = [open + motion.told_gripper * (closed - open) for motion in MOTIONS]
    guess = gripper.polarity(states, told, POSITIONS)
    assert guess.value == {"open": pytest.approx(open), "closed": pytest.approx(closed)}
    assert guess.confidence >= SURE
    assert gripper.polarity([np.zeros((40, 1))]).value is None


def test_columns_that_say_nothing_or_say_it_twice() -> None:
    values = [np.column_stack([part, part[:, 0] * -2.5, np.full(len(part), 0.3)]) for part in POSITIONS]
    assert columns.constant_dims(values) == [4]
    assert [(first, second) for first, second, _ in columns.duplicate_dims(np.concatenate(values))] == [(0, 3)]
    quiet = [part.copy() for part in POSITIONS]
    quiet[3][:, 1] = 0.2
    assert columns.still_episodes(quiet) == {1: [3]}


def test_quantiles_that_nearly_coincide_make_huge_values() -> None:
    joint = np.random.default_rng(0).normal(scale=1e-4, size=(1000, 2))
    joint[::200, 1] = 0.5
    worst = columns.worst_quantile_value(joint)
    assert worst[0] < 10
    assert worst[1] > 1000


def test_a_spike_is_found_where_it_is() -> None:
    values = [part.copy() for part in POSITIONS]
    values[4][20, 1] += 3.0
    assert columns.spikes(values) == {1: [(4, 20)]}
    assert columns.spikes(POSITIONS) == {}


def test_clocks_and_what_they_hide() -> None:
    times = np.arange(50) / HZ
    assert timing.rate([times]).value == HZ
    gap = np.delete(times, 20)
    assert timing.clock(gap).gaps == (19,)
    assert timing.clock(times).gaps == ()
    twice = np.repeat(POSITIONS[0], 2, axis=0)
    repeated, moving = timing.repeated_rows(twice)
    assert repeated > 0.4 * moving
    assert timing.repeated_rows(POSITIONS[0])[0] == 0
    holed = POSITIONS[0].copy()
    holed[20, 1] = np.nan
    assert timing.repeated_rows(holed)[0] == 0
    smooth = np.column_stack([0.01 * np.arange(40), np.zeros(40), np.zeros(40)])
    assert timing.leaps(np.delete(smooth, 20, axis=0)) == [20]
    assert timing.leaps(smooth) == []


def test_templates_are_no_instructions() -> None:
    texts = ["lift the cube", "TODO", "task_3", "", "<instruction>", "put the cup on the plate"]
    assert language.missing(texts) == [3]
    assert set(language.placeholders(texts)) == {"TODO", "task_3", "<instruction>"}


def test_a_copy_is_a_twin_and_the_same_task_is_not() -> None:
    scale = np.concatenate(POSITIONS).std(axis=0)
    outlines = [episodes.whole(part) for part in POSITIONS]
    assert episodes.twins(outlines, scale) == []
    pairs = episodes.twins([*outlines, outlines[3] + 1e-5], scale)
    assert [(pair.first, pair.second) for pair in pairs] == [(3, len(outlines))]


def test_a_sample_of_episodes_is_the_same_for_a_seed_and_has_both_ends() -> None:
    chosen = sampled_episodes(500, 20, seed=3)
    assert chosen == sampled_episodes(500, 20, seed=3)
    assert (chosen[0], chosen[-1], len(set(chosen))) == (0, 499, 20)
    assert sampled_episodes(5, 20, seed=3) == [0, 1, 2, 3, 4]
