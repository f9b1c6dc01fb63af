"""What an ablation changes: an input at a time, in an environment of its own physics."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closed_loop_helpers import MakesTable, Seer, write_dot_arm

from xvla_platform.closed_loop.conditions import OWN, Condition, Material
from xvla_platform.closed_loop.effects import closed_loop_effects, verdicts
from xvla_platform.closed_loop.evaluate import evaluate_closed_loop
from xvla_platform.closed_loop.wrong_words import without_another, wrong_command
from xvla_platform.errors import XvlaError


@pytest.fixture
def env(tmp_path: Path) -> Any:
    return MakesTable(write_dot_arm(tmp_path / "dot_arm"))()


def test_each_condition_takes_what_it_says(env: Any) -> None:
    """Black: nothing is found. Frozen: discs stand still, so nothing is lost. Wrong words: another disc."""
    conditions = [
        OWN,
        *(Condition(input="vision", kind=kind, camera="top") for kind in ("black", "frozen", "mean")),
        *(Condition(input="language", kind=kind) for kind in ("wrong", "empty")),
    ]
    material = Material(mean_images={"top": np.full((64, 64, 3), 90, dtype=np.uint8)})
    result = evaluate_closed_loop(
        Seer(), env, tasks=["reach"], episodes=12, conditions=conditions, material=material, time_limit_s=3.0
    )
    rates = {name: result.summary(name).success.rate for name in result.conditions}
    assert rates["own"] == rates["vision: top frozen"] == 1.0
    assert rates["vision: top black"] == rates["vision: top mean"] == rates["language: empty"] == 0.0
    assert rates["language: wrong"] == 0.0
    assert result.summary("language: wrong").approached.rate == 0.0
    effects = {effect.condition: effect for effect in closed_loop_effects(result, conditions)}
    assert effects["vision: top black"].says == effects["language: wrong"].says == "hurts"
    assert effects["vision: top frozen"].says == "no difference shown"
    said = verdicts(list(effects.values()))
    assert said["vision"].startswith("vision matters: vision: top")
    assert said["language"].startswith("language matters")


def test_wrong_words_never_ask_for_the_same_in_other_words() -> None:
    """Another thing or place by name, the object's rather than the place's; or nothing."""
    place = "put the red cube on the white plate"
    again = ["place the red cube on the white plate", "Move the red block to the white plate.", "pick up the red cube"]
    assert wrong_command(place, [place, *again]) is None
    others = ["put the red cube on the black plate", "put the green cube on the white plate"]
    assert wrong_command(place, [*again, *others]) == others[1]
    assert wrong_command("grab the red block", ["lift the red cube", "pick up the cube"]) is None
    assert wrong_command("open the drawer", ["close the drawer"]) == "close the drawer"
    stacked = "stack the red cube on the blue cube"
    assert wrong_command(stacked, ["put the red cube on top of the blue cube"]) is None
    assert without_another([others[0]], [place, *again]) is None
    assert without_another([place, others[0]], [place, *again]) == place


def test_an_environment_without_other_words_is_told_before_the_first_episode(env: Any) -> None:
    """None at all, or the own ones again: one line, and no episode was run."""
    wrong, reset, seer = Condition(input="language", kind="wrong"), env.reset, Seer()
    for other, said in ((None, "there is no other command to give for"), (0, "asks for the same as the instruction")):

        def other_reset(other: Any = other, **options: Any) -> Any:
            seen, _ = reset(**options)
            return seen, {} if other is None else {"other_instruction": seen["instruction"].upper()}

        env.reset = other_reset
        with pytest.raises(XvlaError, match=said):
            evaluate_closed_loop(seer, env, tasks=["reach"], episodes=3, conditions=[OWN, wrong])
    assert not seer.asked
    env.reset = lambda **options: (reset(**options)[0], {})
    material = Material(instructions=("reach the red disc", "reach the green disc", "reach the blue disc"))
    result = evaluate_closed_loop(seer, env, tasks=["reach"], episodes=3, conditions=[wrong], material=material)
    assert result.summary("language: wrong").success.rate == 0.0
