"""`xvla check` on the committed example robot: clean as it is, and each mistake in its declaration called by name."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY

from xvla_platform.check.context import make_context
from xvla_platform.check.findings import CheckContext, CheckGroup, CheckReport, Finding, Rule
from xvla_platform.check.runner import catalogue, check_groups, run_checks
from xvla_platform.data.reader import DatasetReader
from xvla_platform.errors import XvlaError
from xvla_platform.platform.bases import resolve_base
from xvla_platform.platform.embodiments import base_space, open_data
from xvla_platform.platform.plugins import load_plugin
from xvla_platform.specs.embodiment import EmbodimentSpec

MY_ARM = REPOSITORY / "plugins" / "my_arm"
EPISODES = 16
Edit = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def groups() -> tuple[CheckGroup, ...]:
    """The checks of numbers; those of cameras decode video and have tests of their own."""
    return tuple(group for group in check_groups() if group.name not in ("cameras", "drift"))


@pytest.fixture(scope="module")
def reader() -> DatasetReader:
    plugin = load_plugin(MY_ARM)
    return open_data(plugin.spec, plugin.folder)


def look(reader: DatasetReader, groups: tuple[CheckGroup, ...], edit: Edit | None = None) -> CheckReport:
    declared = json.loads(load_plugin(MY_ARM).spec.model_dump_json())
    if edit is not None:
        edit(declared)
    spec = EmbodimentSpec.model_validate(declared)
    # Decoding each episode's video is dear, and only some edits are about what the dataset holds.
    verified = edit not in STRUCTURAL
    context = make_context(spec, reader, plugin_folder=MY_ARM, episodes=EPISODES, verified=verified)
    return run_checks(context, groups=groups)


def field(declared: dict[str, Any], vector: str, name: str) -> dict[str, Any]:
    (found,) = (field for field in declared[vector]["fields"] if field["name"] == name)
    result: dict[str, Any] = found
    return result


def both(name: str, **changes: Any) -> Edit:
    def edit(declared: dict[str, Any]) -> None:
        for vector in ("proprio", "action"):
            field(declared, vector, name).update(changes)

    return edit


def relative(declared: dict[str, Any]) -> None:
    field(declared, "action", "position").update(reference="relative", axes="frame")


def other_rate(declared: dict[str, Any]) -> None:
    declared["control_hz"] = 30


def long_horizon(declared: dict[str, Any]) -> None:
    declared["horizon_s"] = 20


def other_key(declared: dict[str, Any]) -> None:
    declared["proprio"]["key"] = "observation.positions"


def shifted_fields(declared: dict[str, Any]) -> None:
    for vector in ("proprio", "action"):
        fields = declared[vector]["fields"]
        fields.insert(0, fields.pop())


STRUCTURAL = (other_rate, other_key)


def test_the_example_robot_is_clean(reader: DatasetReader, groups: tuple[CheckGroup, ...]) -> None:
    report = look(reader, groups)
    assert [finding for finding in report.findings if finding.severity != "info"] == []
    assert report.facts["episodes_read"] == EPISODES


@pytest.mark.parametrize(
    ("edit", "code", "place"),
    [
        (both("position", unit="m"), "XV101", "action.position"),
        (both("position", unit="cm"), "XV101", "proprio.position"),
        (both("rotation", unit="rad"), "XV102", "action.rotation"),
        (both("rotation", format="euler_zyx_extrinsic"), "XV204", "action.rotation"),
        (both("rotation", format="axis_angle"), "XV204", "proprio.rotation"),
        (both("gripper", open=0.0, closed=1.0), "XV220", "action.gripper"),
        (both("gripper", open=100.0, closed=0.0), "XV221", "action.gripper"),
        (relative, "XV210", "action.position"),
        (other_rate, "XV002", "control_hz"),
        (other_rate, "XV401", "control_hz"),
        (long_horizon, "XV421", "horizon_s"),
        (other_key, "XV005", "proprio.key"),
        (shifted_fields, "XV010", "proprio.gripper"),
    ],
)
def test_a_wrong_declaration_is_called_by_its_name(
    reader: DatasetReader, groups: tuple[CheckGroup, ...], edit: Edit, code: str, place: str
) -> None:
    report = look(reader, groups, edit)
    found = {(finding.code, finding.field) for finding in report.of("error")}
    assert (code, place) in found, report.findings


class Holed:
    """The recording with one state of episode 0 that is no number."""

    def __init__(self, reader: DatasetReader) -> None:
        self._reader = reader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def columns(self, episode: int, keys: Sequence[str]) -> dict[str, np.ndarray]:
        values = dict(self._reader.columns(episode, keys))
        if episode == 0 and "observation.state" in values:
            values["observation.state"] = values["observation.state"].copy()
            values["observation.state"][30, 1] = np.nan
        return values


def test_one_hole_in_the_numbers_changes_nothing_else(reader: DatasetReader) -> None:
    plugin, base = load_plugin(MY_ARM), resolve_base("xvla-tiny")
    wanted = tuple(group for group in check_groups() if group.name in ("base", "timing"))
    assert len(wanted) == 2
    codes = []
    for source in (reader, Holed(reader)):
        context = make_context(
            plugin.spec, source, plugin_folder=MY_ARM, base=base, space=base_space(base), episodes=8, verified=True
        )
        assert np.isnan(context.recording.episodes[0].proprio).any() == isinstance(source, Holed)
        report = run_checks(context, groups=wanted)
        assert not any("nan" in finding.measured or finding.measured.endswith(": ") for finding in report.findings)
        codes.append({finding.code for finding in report.findings})
    assert codes[0] == codes[1] != set()


def test_the_horizon_advised_fits_the_shortest_episode(reader: DatasetReader, groups: tuple[CheckGroup, ...]) -> None:
    report = look(reader, groups, long_horizon)
    advice = next(finding.fix for finding in report.findings if finding.code == "XV421")
    assert advice is not None
    seconds = float(advice.removeprefix("`horizon_s: ").partition("`")[0])
    ticks = seconds * reader.info.fps
    shortest = min(episode.length for episode in reader.episodes)
    assert shortest - 1 < ticks <= shortest


def test_a_finding_says_what_was_measured_why_and_what_to_write(
    reader: DatasetReader, groups: tuple[CheckGroup, ...]
) -> None:
    report = look(reader, groups, both("position", unit="m"))
    plain = json.loads(json.dumps(report.to_json()))
    first = next(item for item in plain["findings"] if item["code"] == "XV101")
    assert first["fix"] == "unit: mm"
    assert "span" in first["measured"]
    assert first["why"] == catalogue()["XV101"].why
    assert plain["counts"]["error"] >= 2
    assert report.without(("XV101",)).findings == tuple(f for f in report.findings if f.code != "XV101")


def test_every_rule_is_complete_and_has_a_code_of_its_own() -> None:
    rules = catalogue()
    assert len({rule.slug for rule in rules.values()}) == len(rules) > 50
    for code, rule in rules.items():
        assert code == rule.code
        assert rule.title[0].islower(), code
        assert not rule.title.endswith("."), code
        assert rule.why.endswith("."), code
        assert rule.fix.endswith((".", "?")), code


def test_checks_of_a_plugin_run_beside_the_built_in_ones(tmp_path: Path, reader: DatasetReader) -> None:
    (tmp_path / "plugin.py").write_text(
        (REPOSITORY / "docs" / "checks.md")
        .read_text()
        .split("```python", 1)[1]
        .split("\n", 1)[1]
        .split("```")[0]
        .replace('context.reader.columns(episode.index, ["motor.temperature"])["motor.temperature"].max()', "71.0")
    )
    from xvla_platform.platform.plugins import build_manager

    groups = check_groups(build_manager(tmp_path))
    assert groups[0].name != "acme"
    (own,) = (group for group in groups if group.name == "acme")
    report = look(reader, (own,))
    assert len(report.findings) == EPISODES
    assert report.findings[0].code == "ACME101"


def test_what_stops_a_check_is_told_by_whose_fault_it_is(reader: DatasetReader, groups: tuple[CheckGroup, ...]) -> None:
    """Steps along a tool whose turn nobody records are the declaration's: no episode is to be removed."""

    def edit(declared: dict[str, Any]) -> None:
        field(declared, "action", "position").update(reference="relative", axes="tool")
        declared["proprio"]["fields"][1] = {"name": "unused", "kind": "ignored", "size": 3}
        declared["dataset"]["skip_idle"] = {}

    (finding,) = (one for one in look(reader, groups, edit).findings if one.code in ("XV008", "XV011"))
    assert (finding.code, finding.field) == ("XV011", "action.position.axes")
    assert "a rotation field in proprio" in finding.measured


def test_a_check_that_cannot_read_is_a_finding_and_a_code_without_a_rule_is_a_bug(reader: DatasetReader) -> None:
    def unreadable(context: CheckContext) -> Iterator[Finding]:
        context.reader.columns(0, ["no.such.column"])
        yield from ()

    def nameless(context: CheckContext) -> Iterator[Finding]:
        yield Finding(code="XV999", severity="info", field=None, measured="x")

    rule = Rule(code="ACME1" + "00", slug="x", title="x", why="x.", fix="x.")
    report = look(reader, (CheckGroup(name="a", rules=(rule,), checks=(unreadable,)),))
    assert [finding.code for finding in report.findings] == ["XV008"]
    with pytest.raises(ValueError, match="XV999"):
        look(reader, (CheckGroup(name="a", rules=(rule,), checks=(nameless,)),))
    with pytest.raises(XvlaError, match="capital letters"):
        Rule(code="acme", slug="x", title="x", why="x.", fix="x.")
