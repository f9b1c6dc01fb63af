"""What a camera is, measured from how its image moves: against the simulator's own camera poses."""

from typing import Any

import numpy as np
import pytest
import yaml
from camera_helpers import EPISODES, FRONT, PLUGIN, WRIST, Changed, context, kept, late, mirrored
from scipy.spatial.transform import Rotation

from xvla_platform.measure.cameras import Seen, delay, flip, main_view, mount, mounts, watch
from xvla_platform.measure.cameras_flow import growth, reduce_clip, view_direction
from xvla_platform.measure.cameras_footage import Clip, Footage, Hand, hands_of, look, shrink
from xvla_platform.measure.cameras_stills import exchanged, same_streams, still_faults
from xvla_platform.measure.guess import SURE


@pytest.fixture(scope="module")
def plain() -> Footage:
    one = context()
    return look(one.reader, [FRONT, WRIST], hands_of(one.recording))


@pytest.fixture(scope="module")
def seen(plain: Footage) -> dict[str, Seen]:
    return watch(plain)


def test_viewing_direction_is_the_simulators(seen: dict[str, Seen]) -> None:
    sim = yaml.safe_load((PLUGIN / "sim.yaml").read_text())
    camera = sim["cameras"]["front"]
    looks = np.subtract(camera["look_at"], camera["position"])
    frame = Rotation.from_euler("xyz", sim["arms"]["left"]["data_frame"]["euler_xyz_deg"], degrees=True)
    true = frame.inv().apply(looks / np.linalg.norm(looks))
    system = seen[FRONT].frame
    assert system is not None
    measured = view_direction(system.solve())
    assert measured @ true / np.linalg.norm(measured) > np.cos(np.radians(15))


def test_growth_along_the_view_tells_a_hand_camera_from_a_fixed_one(seen: dict[str, Seen]) -> None:
    front, wrist = seen[FRONT].frame, seen[WRIST].frame
    assert front is not None
    assert wrist is not None
    assert growth(front.solve()) < -0.5
    assert growth(wrist.solve()) > 0.3


def test_mount_main_flip_and_delay_of_the_clean_recording(seen: dict[str, Seen]) -> None:
    assert (mount(seen[FRONT]).value, mount(seen[WRIST]).value) == ("fixed", "wrist")
    assert min(mount(one).confidence for one in seen.values()) >= SURE
    main = main_view(kept(), [WRIST, FRONT], {}, seen=seen)
    assert (main.value, main.confidence >= SURE) == (FRONT, True)
    for one in seen.values():
        assert (flip(one).value, flip(one).confidence >= SURE) == ("none", True)
        assert abs(delay(one, 20.0).value) <= 1


def test_names_of_keys_are_not_used_where_images_tell(plain: Footage, seen: dict[str, Seen]) -> None:
    """The stream called wrist in the front's place is still the wrist camera."""
    renamed = {FRONT: seen[WRIST], WRIST: seen[FRONT]}
    guesses = mounts(kept(), [FRONT, WRIST], plain.hands, seen=renamed)
    assert (guesses[FRONT].value, guesses[WRIST].value) == ("wrist", "fixed")
    assert main_view(kept(), [FRONT, WRIST], plain.hands, seen=renamed).value == WRIST


def test_joints_alone_never_make_it_sure_and_never_tell_a_mirror(plain: Footage) -> None:
    hands = {episode: tuple(Hand(numbers=one.numbers) for one in arms) for episode, arms in plain.hands.items()}
    blind = watch(Footage(streams=plain.streams, hands=hands, instructions=plain.instructions))
    assert all(mount(one).confidence < SURE for one in blind.values())
    assert all(flip(one).value is None for one in blind.values())
    assert abs(delay(blind[FRONT], 20.0).value) <= 1


def test_motion_of_other_episodes_concludes_nothing_with_sureness(plain: Footage) -> None:
    hands = {episode: plain.hands[(episode + 5) % EPISODES] for episode in plain.hands}
    wrong = watch(Footage(streams=plain.streams, hands=_fitted(plain, hands), instructions=plain.instructions))
    assert all(one.follows < 0.5 * 0.86 for one in wrong.values())


def test_delay_is_measured_in_frames(plain: Footage) -> None:
    for frames in (2, 5, -2, -8):
        reader: Any = Changed(kept(), late(frames))
        footage = look(reader, [FRONT], plain.hands)
        guess = delay(watch(footage)[FRONT], 20.0)
        assert (guess.value, guess.confidence >= SURE) == (frames, True)


@pytest.mark.parametrize("frames", [-8, -16, 16])
def test_images_far_from_their_numbers_are_not_called_mirrored(plain: Footage, frames: int) -> None:
    reader: Any = Changed(kept(), late(frames))
    assert flip(watch(look(reader, [FRONT], plain.hands))[FRONT]).value in (None, "none")


def test_mirror_of_a_wrist_camera_is_found_without_knowing_its_mounting(plain: Footage) -> None:
    reader: Any = Changed(kept(), mirrored, key=WRIST)
    guess = flip(watch(look(reader, [WRIST], plain.hands))[WRIST])
    assert (guess.value, guess.numbers["axis_known"]) == ("horizontal", False)
    assert guess.confidence >= SURE


def test_a_shifted_pattern_gives_its_own_shift() -> None:
    """The least squares of one clip recover a known motion in pixels."""
    random = np.random.default_rng(0)
    coarse = random.normal(size=(12, 12))
    y, x = np.mgrid[:32, :32]
    steps = np.array([[0.4, 0.0], [0.0, -0.3], [0.25, 0.25], [-0.4, 0.1]])
    places = np.vstack([[0.0, 0.0], np.cumsum(steps, axis=0)])
    frames = np.stack([_pattern(coarse, x - dx, y - dy) for dx, dy in places]).astype(np.float32)
    reduced = reduce_clip(Clip(start=0, images=frames))
    for step, (gram, product) in enumerate(zip(reduced.gram, reduced.product, strict=True)):
        shift = np.linalg.solve(gram, product)[:2] * 16  # from half image widths to pixels
        np.testing.assert_allclose(shift, steps[step], atol=0.06)


def test_shrinking_takes_means_and_keeps_the_shape() -> None:
    frames = np.zeros((1, 96, 128, 3), dtype=np.uint8)
    frames[:, :, ::2] = 100
    small = shrink(frames, 64)
    assert small.shape == (1, 48, 64, 3)
    assert (small == 50).all()


def _pattern(coarse: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    waves = [
        value * np.cos(2 * np.pi * (a * x + b * y) / 32 + a - b)
        for (a, b), value in np.ndenumerate(coarse[:3, :3])
        if a or b
    ]
    return 128 + 25 * np.sum(waves, axis=0)


def _fitted(plain: Footage, hands: dict[int, tuple[Hand, ...]]) -> dict[int, tuple[Hand, ...]]:
    """Hands cut or held to the length of the episode they are put into."""
    out = {}
    for episode, arms in hands.items():
        length = len(plain.hands[episode][0].numbers)
        rows = np.minimum(np.arange(length), len(arms[0].numbers) - 1)
        out[episode] = tuple(
            Hand(
                numbers=arm.numbers[rows],
                position=None if arm.position is None else arm.position[rows],
                rotation=None if arm.rotation is None else arm.rotation[rows],
            )
            for arm in arms
        )
    return out


def test_two_episodes_make_nothing_sure(plain: Footage) -> None:
    few = {episode: plain.hands[episode] for episode in (0, 1)}
    for one in watch(look(kept(), [FRONT, WRIST], few)).values():
        assert max(mount(one).confidence, flip(one).confidence, delay(one, 20.0).confidence) < SURE


def test_very_wide_and_tiny_images_are_measured_without_fault(plain: Footage) -> None:
    def wide(reader: Any, episode: int, key: str, indices: np.ndarray) -> np.ndarray:
        return np.repeat(reader.frames(episode, key, indices)[:, 56:72], 8, axis=2)

    few = {episode: plain.hands[episode] for episode in (0, 1, 2)}
    reader: Any = Changed(kept(), wide)
    footage = look(reader, [FRONT, WRIST], few)
    assert footage.streams[FRONT].sizes[0] == (16, 1024)
    assert not [fault for fault in still_faults(footage, FRONT) if fault.kind in ("dark", "uniform", "frozen")]
    assert list(same_streams(footage)) == []
    assert exchanged(footage, FRONT, WRIST)[0] == {}
    assert all(mount(one).confidence <= 0.8 for one in watch(footage).values())
