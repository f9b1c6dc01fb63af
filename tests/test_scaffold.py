"""A scaffolded plugin against the hand-written one: right or blank, never wrong; from names, and from numbers alone."""

from typing import Any

import pytest
import yaml
from conftest import REPOSITORY
from scaffold_data import bare, differences, recorded

from xvla_platform.scaffold.draft import answered, leaves, resolve, state_of
from xvla_platform.scaffold.infer import Result, infer
from xvla_platform.scaffold.render import plugin_text
from xvla_platform.scaffold.sources import Source
from xvla_platform.specs.base import validate_model
from xvla_platform.specs.blanks import dotted, find_blanks
from xvla_platform.specs.embodiment import EmbodimentSpec


def truth_of(robot: str) -> dict[str, Any]:
    """The hand-written plugin; only the comparison reads it."""
    raw: dict[str, Any] = yaml.safe_load((REPOSITORY / "plugins" / robot / "plugin.yaml").read_text())
    return raw


def simulated(robot: str) -> Source:
    if not (REPOSITORY / "plugins" / robot / "demonstrations" / "meta" / "info.json").is_file():
        pytest.skip(f"{robot}'s demonstrations are not recorded here")
    return recorded(robot)


@pytest.fixture(scope="module")
def my_arm() -> Result:
    """The worked example, scaffolded with everything that its dataset shows."""
    return infer(recorded("my_arm"), "my_arm")


def check_whole(result: Result, robot: str) -> None:
    """Sizes, keys, rate and cameras right, and nothing written that is wrong."""
    truth, draft = truth_of(robot), result.draft
    wrong, right, blank = differences(draft, truth)
    assert not wrong
    assert len(right) >= 17
    assert set(blank) <= {"proprio.rotation.format", "action.rotation.format"}
    plain = resolve(draft)
    assert plain["control_hz"] == truth["control_hz"]
    kept = ("name", "role", "mount", "resolution", "key")
    assert [{name: camera[name] for name in kept} for camera in plain["cameras"]] == truth["cameras"]
    assert all(state_of(camera["role"]) == "sure" for camera in draft["cameras"])


def test_the_example_is_scaffolded_as_it_was_written_by_hand(my_arm: Result) -> None:
    check_whole(my_arm, "my_arm")
    blanks = [dotted(place) for place in find_blanks(resolve(my_arm.draft)) if place[0] != "dataset"]
    assert blanks == []


def test_the_scaffolded_file_loads_and_declares_the_same_robot(my_arm: Result) -> None:
    text = plugin_text({**my_arm.draft, "dataset": {**my_arm.draft["dataset"], "path": "demonstrations"}}, source="x")
    spec = validate_model(EmbodimentSpec, yaml.safe_load(text), "plugin.yaml")
    told = validate_model(EmbodimentSpec, truth_of("my_arm"), "plugin.yaml")
    assert spec.proprio == told.proprio
    assert spec.action == told.action
    assert spec.cameras == told.cameras


def test_what_no_measurement_can_settle_is_never_called_sure(my_arm: Result) -> None:
    unsure = {place[-1] for place, guess in leaves(my_arm.draft) if state_of(guess) == "check"}
    assert {"frame", "format", "horizon_s"} <= unsure


def test_each_camera_says_why_it_is_or_is_not_the_main_view(my_arm: Result) -> None:
    main, other = (camera["role"].evidence for camera in my_arm.draft["cameras"])
    assert main.startswith("the only view not on a wrist")
    assert other.startswith("'front' is the main view")


def test_the_example_without_names_is_right_or_blank() -> None:
    result = infer(bare(recorded("my_arm"), names=False), "my_arm")
    wrong, right, blank = differences(result.draft, truth_of("my_arm"))
    assert not wrong
    assert len(right) >= 16
    assert blank == ["proprio.rotation.format", "action.rotation.format"]


def test_a_draft_is_complete_once_its_blanks_are_answered() -> None:
    draft = infer(bare(recorded("my_arm"), names=False), "my_arm").draft
    draft = {**draft, "cameras": truth_of("my_arm")["cameras"]}
    for place in find_blanks(resolve(draft)):
        draft = answered(draft, place, "euler_xyz_extrinsic" if place[-1] == "format" else "demonstrations")
    draft["dataset"]["path"] = "demonstrations"
    assert validate_model(EmbodimentSpec, resolve(draft), "plugin.yaml").proprio.size == 7


@pytest.mark.slow
@pytest.mark.parametrize("robot", ["panda", "sawyer", "iiwa", "kinova3"])
def test_every_simulated_robot_is_scaffolded_right_or_blank(robot: str) -> None:
    check_whole(infer(simulated(robot), robot), robot)


@pytest.mark.slow
@pytest.mark.parametrize("robot", ["panda", "sawyer", "iiwa", "kinova3"])
def test_every_simulated_robot_without_names_is_right_or_blank(robot: str) -> None:
    result = infer(bare(simulated(robot), names=False), robot)
    wrong, _, _ = differences(result.draft, truth_of(robot))
    assert not wrong
