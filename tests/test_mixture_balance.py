"""What is drawn, and how often: tasks, episodes and positions as balanced, robots as the mixture weighs them."""

from typing import Any

import numpy as np
import pytest

from xvla_platform.adapt.mixture import chances, mixture_weights
from xvla_platform.errors import XvlaError
from xvla_platform.specs.recipe import Balance

EPISODES = np.repeat([0, 1, 2], [6, 2, 4])
FRAMES = np.concatenate([np.arange(6), np.arange(2), np.arange(4)])
LENGTHS = np.array([6, 2, 4])
TASKS = np.array([0, 0, 1])[EPISODES]


@pytest.mark.parametrize(
    ("balance", "expected"),
    [
        ({}, [6 / 12, 2 / 12, 4 / 12]),
        ({"tasks": True}, [3 / 8, 1 / 8, 1 / 2]),
        ({"episodes": True}, [1 / 3, 1 / 3, 1 / 3]),
        ({"tasks": True, "episodes": True}, [1 / 4, 1 / 4, 1 / 2]),
    ],
)
def test_tasks_and_episodes_are_balanced(balance: dict[str, Any], expected: list[float]) -> None:
    """Chance of each episode: by frames, by instruction, by episode, and by episode within an instruction."""
    chance = chances(Balance(**balance), EPISODES, FRAMES, TASKS, LENGTHS)
    assert np.bincount(EPISODES, chance) == pytest.approx(expected)
    assert all(np.ptp(chance[np.flatnonzero(episode == EPISODES)]) < 1e-12 for episode in range(3))


def test_positions_within_an_episode_are_balanced() -> None:
    """The first half twice as often as the second, in each episode; parts that are 0 are never drawn."""
    chance = chances(Balance(positions=(2, 1), episodes=True), EPISODES, FRAMES, TASKS, LENGTHS)
    first = LENGTHS[EPISODES] > FRAMES * 2
    assert chance[first].sum() == pytest.approx(2 / 3)
    chance = chances(Balance(positions=(0, 1)), EPISODES, FRAMES, TASKS, LENGTHS)
    assert chance[first].sum() == 0
    with pytest.raises(XvlaError, match="no sample has a chance"):
        chances(Balance(positions=(0, 1)), np.zeros(1, int), np.zeros(1, int), np.zeros(1, int), np.array([4]))


def test_the_published_mixture_is_the_papers() -> None:
    """Its seven weights sum to 1; a recipe without one of its robots has to write its own."""
    names = ["robomind-ur", "AGIBOT", "Droid-Left", "Droid-Right", "robomind-franka", "robomind-agilex"]
    everyone = [*names, "robomind-franka-dual", "my_arm"]
    weights = mixture_weights("x-vla", everyone, "recipe.yaml")
    assert dict(zip(everyone, weights, strict=True))["AGIBOT"] == 0.4
    assert sum(weights) == pytest.approx(1.0)
    assert weights[-1] == 0
    with pytest.raises(XvlaError, match=r"does not have; found robomind-franka-dual.*Write the weights"):
        mixture_weights("x-vla", names, "recipe.yaml")
    with pytest.raises(XvlaError, match="unknown mixture; found x; allowed: x-vla"):
        mixture_weights("x", names, "recipe.yaml")
