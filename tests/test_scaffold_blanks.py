"""Blanks: validation refuses them by name, asks their question, and says what may be answered."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import write_plugin

from xvla_platform.errors import XvlaError
from xvla_platform.measure.guess import Guess
from xvla_platform.platform.plugins import load_plugin
from xvla_platform.scaffold.combine import combine
from xvla_platform.scaffold.draft import answered, leaves, nothing, resolve, state_of
from xvla_platform.scaffold.empty import empty_draft
from xvla_platform.scaffold.render import plugin_text, readme_text
from xvla_platform.specs.base import validate_model
from xvla_platform.specs.blanks import BLANK, QUESTIONS, allowed_values, dotted, find_blanks
from xvla_platform.specs.embodiment import EmbodimentSpec


def refused(folder: Path) -> XvlaError:
    with pytest.raises(XvlaError) as caught:
        load_plugin(folder)
    assert "\n" not in str(caught.value)
    return caught.value


def put(robot: dict[str, Any], place: tuple[Any, ...], value: Any) -> None:
    for part in place[:-1]:
        robot = robot[part]
    robot[place[-1]] = value


@pytest.mark.parametrize(
    ("place", "allowed", "words"),
    [
        (("control_hz",), None, "how many frames a second"),
        (("description",), None, "which robot is this"),
        (("cameras", 1, "mount"), "fixed, wrist, head, chest, other", "in camera 'wrist'"),
        (("proprio", "fields", 0, "unit"), "m, cm, mm", "in field 'position'"),
        (("proprio", "fields", 1, "unit"), "rad, deg", "in field 'rotation'"),
        (("action", "fields", 0, "reference"), "absolute, relative, relative_to_first", "target itself"),
        (("action", "fields", 2, "closed"), None, "fully closed"),
        (("dataset", "path"), None, "where do the demonstrations lie"),
    ],
)
def test_a_blank_is_refused_with_its_question(
    robot: dict[str, Any], tmp_path: Path, place: tuple[Any, ...], allowed: str | None, words: str
) -> None:
    put(robot, place, BLANK)
    error = refused(write_plugin(tmp_path / "my_arm", robot))
    assert error.field == dotted(place)
    assert error.allowed == allowed
    assert words in str(error)
    assert error.hint is None


def test_all_blanks_are_listed_at_once(robot: dict[str, Any], tmp_path: Path) -> None:
    places = [("control_hz",), ("proprio", "fields", 1, "format"), ("action", "fields", 2, "open")]
    for place in places:
        put(robot, place, BLANK)
    error = refused(write_plugin(tmp_path / "my_arm", robot))
    assert error.field == "control_hz"
    assert error.hint == "2 more blanks: proprio.fields[1].format, action.fields[2].open"


def test_a_format_is_asked_for_in_formats_of_that_size(robot: dict[str, Any], tmp_path: Path) -> None:
    put(robot, ("proprio", "fields", 1), {"name": "r", "kind": "rotation", "size": 4, "format": BLANK, "frame": "base"})
    assert refused(write_plugin(tmp_path / "my_arm", robot)).allowed == "quaternion_xyzw, quaternion_wxyz"


def test_quoted_or_bare_a_blank_is_a_blank(robot: dict[str, Any], tmp_path: Path) -> None:
    folder = write_plugin(tmp_path / "my_arm", robot)
    text = (folder / "plugin.yaml").read_text()
    for blank in ("???", "'???'", '"???"'):
        (folder / "plugin.yaml").write_text(text.replace("control_hz: 10", f"control_hz: {blank}"))
        assert refused(folder).field == "control_hz"


def test_the_empty_template_asks_for_everything_and_loads_once_answered() -> None:
    draft = empty_draft("robot")
    text = plugin_text(draft, source="an empty template")
    data = yaml.safe_load(text)
    assert data == resolve(draft)
    for place in find_blanks(data):
        assert str(place[-1]) in QUESTIONS
    answers = {"unit": "m", "size": 4, "format": "quaternion_xyzw", "reference": "absolute", "open": 1.0, "closed": 0.0}
    answers |= {"control_hz": 10, "resolution": [128, 128], "mount": "fixed", "path": "data", "description": "An arm."}
    while places := list(find_blanks(resolve(draft))):
        place = places[0]
        value = answers.get(str(place[-1]), "_".join(str(part) for part in place))
        draft = answered(draft, place, value)
    plain = resolve(draft)
    for vector in ("proprio", "action"):
        plain[vector]["fields"][1].pop("unit", None)
    spec = validate_model(EmbodimentSpec, plain, "plugin.yaml")
    assert spec.proprio.size == 8


def test_answers_bring_the_questions_that_follow_from_them() -> None:
    unknown = nothing("nothing tells")
    draft = {"action": {"key": "action", "fields": [{"name": "numbers", "kind": unknown, "size": 3}]}}
    joint = answered(draft, ("action", "fields", 0, "kind"), "joint")
    assert list(joint["action"]["fields"][0]) == ["name", "kind", "size", "unit", "reference"]
    position = answered(draft, ("action", "fields", 0, "kind"), "position")
    relative = answered(position, ("action", "fields", 0, "reference"), "relative")
    assert "axes" in relative["action"]["fields"][0]
    assert "axes" not in answered(relative, ("action", "fields", 0, "reference"), "absolute")["action"]["fields"][0]


def test_comments_say_how_sure_each_line_is() -> None:
    draft = {
        "name": "robot",
        "description": "A robot.",
        "control_hz": Guess(value=20, confidence=0.97, evidence="seen"),
        "horizon_s": Guess(value=1.0, confidence=0.7, evidence="usual"),
        "proprio": {
            "fields": [{"name": "a", "kind": "position", "unit": Guess(value="mm", confidence=0.5, evidence="faint")}]
        },
    }
    lines = {line.split(":")[0].strip(): line for line in plugin_text(draft, source="a test").splitlines()}
    assert lines["control_hz"].split("#")[1].strip() == "0.97 seen"
    assert lines["horizon_s"].split("#")[1].strip() == "check: 0.70 usual"
    assert lines["unit"].split("#")[0].strip() == "unit: ???"
    assert "best guess mm (0.50); faint; allowed: m, cm, mm" in lines["unit"]
    assert "- `proprio.fields[0].unit`" in readme_text(draft, source="a test")


@pytest.mark.parametrize("evil", ["a\nb: c", "a\x85b: c", "a\u2028b", "x # y: {", "\ud800", "'\"", "a\tb", "é" * 999])
def test_a_dataset_cannot_write_lines_of_its_own(evil: str) -> None:
    draft = {
        "name": "robot",
        "description": evil,
        "control_hz": Guess(value=20, confidence=0.97, evidence=evil),
        "proprio": {"key": evil, "fields": []},
    }
    text = plugin_text(draft, source=evil, notes=[evil])
    data = yaml.safe_load(text.encode("utf-8").decode())
    assert set(data) == {"name", "description", "control_hz", "proprio"}
    assert data["proprio"]["key"] == draft["proprio"]["key"]


def guess(value: Any, confidence: float) -> Guess:
    return Guess(value=value, confidence=confidence, evidence=f"{value} it is")


def test_agreement_adds_up_and_contradiction_is_a_blank() -> None:
    assert combine(guess("m", 0.7), guess("m", 0.8)).confidence == pytest.approx(0.94)
    assert state_of(combine(guess("m", 0.95), guess("mm", 0.9))) == "blank"
    assert state_of(combine(guess("m", 0.7), guess("mm", 0.5))) == "blank"
    assert combine(guess("m", 0.7), guess("mm", 0.1)).value == "m"
    assert combine(guess("m", 0.7), None) == guess("m", 0.7)
    assert state_of(combine(None, None)) == "blank"


def test_blanks_are_found_in_order_and_nothing_else_is_one() -> None:
    data = {"a": [{"b": BLANK}, {"c": "what???"}], 3: BLANK, "d": {"e": "?"}}
    assert list(find_blanks(data)) == [("a", 0, "b"), (3,)]
    assert allowed_values(EmbodimentSpec, {"nonsense": BLANK}, ("nonsense",)) == ()
    assert [place for place, _ in leaves({"x": [guess(1, 1.0)]})] == [("x", 0)]
