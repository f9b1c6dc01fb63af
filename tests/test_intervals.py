"""Intervals of success and of paired differences: published values, coverage, and no false certainty."""

import numpy as np
import pytest

from xvla_platform.closed_loop.intervals import paired_difference, wilson


def test_wilson_gives_published_intervals() -> None:
    """Newcombe 1998, table I, method 3 (81/263, 15/148, 0/20, 1/29)."""
    for successes, episodes, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)):
        assert wilson(successes, episodes) == pytest.approx((low, high), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_a_paired_interval_covers_as_often_as_it_says() -> None:
    """Of 60 experiments with a true difference of 0.2, about 95 % hold it; frames of an episode count as one draw."""
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(60):
        episodes = np.repeat(np.arange(40), 10)
        shift = 0.2 + rng.normal(0, 1, 40)[episodes] + rng.normal(0, 0.1, 400)
        own = rng.normal(0, 1, 400)
        _, low, high = paired_difference(own, own + shift, episodes, seed=trial)
        held += low <= 0.2 <= high
    assert 52 <= held <= 60
    # Ten frames an episode that shift together are no ten draws: taken as such they would seem three times as sure.
    _, naive_low, naive_high = paired_difference(own, own + shift)
    assert high - low > 2.5 * (naive_high - naive_low)


def test_no_changed_outcome_is_not_certainty() -> None:
    """Ten of ten pairs alike leave room for a difference; fifty leave less."""
    for count in (10, 50):
        mean, low, high = paired_difference(np.ones(count), np.ones(count))
        assert (mean, high) == (0.0, pytest.approx(wilson(0, count)[1]))
        assert low == -high
        mean, low, high = paired_difference(np.zeros(count), np.ones(count))
        assert (mean, low, high) == (1.0, pytest.approx(wilson(count, count)[0]), 1.0)
    frames = np.linspace(0.1, 0.2, 5)
    assert paired_difference(frames, frames + 1, np.zeros(5))[1:] == (-np.inf, np.inf), "one episode alone"
