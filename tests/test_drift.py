"""Drift: a recording against the rows of a base, and against what an adaptation was trained with."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import REPOSITORY

from xvla_platform.check.drift import CHECKS, RULES, against_base, against_trained
from xvla_platform.check.findings import CheckContext, CheckGroup, Finding
from xvla_platform.check.runner import check_groups, run_checks
from xvla_platform.data.conventions import Conventions
from xvla_platform.data.ranges import dataset_ranges
from xvla_platform.data.reader import DatasetReader
from xvla_platform.data.statistics import compute_statistics
from xvla_platform.measure.drift import Reference, comparison, known_factor, overlap
from xvla_platform.measure.recording import Recording, load_recording
from xvla_platform.platform.bases import resolve_base
from xvla_platform.platform.embodiments import open_data
from xvla_platform.platform.plugins import load_plugin
from xvla_platform.specs.action_space import action_space
from xvla_platform.specs.embodiment import EmbodimentSpec

PLUGIN = REPOSITORY / "plugins/my_arm"
EE6D = action_space("ee6d")


@pytest.fixture(scope="module")
def reader() -> DatasetReader:
    return open_data(load_plugin(PLUGIN).spec, PLUGIN)


@pytest.fixture(scope="module")
def recording(reader: DatasetReader) -> Recording:
    return load_recording(reader, load_plugin(PLUGIN).spec, max_episodes=12)


@pytest.fixture(scope="module")
def trained(reader: DatasetReader, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `--against` looks at: an adaptation's contract and the statistics it was trained with."""
    spec = load_plugin(PLUGIN).spec
    folder = tmp_path_factory.mktemp("registry") / "my_arm/v1"
    folder.mkdir(parents=True)
    statistics = compute_statistics(reader, spec, conventions=Conventions(spec, EE6D))
    (folder / "stats.json").write_text(json.dumps(statistics))
    (folder / "embodiment.yaml").write_text(yaml.safe_dump(_record(spec)))
    return folder


def _record(spec: EmbodimentSpec) -> dict[str, Any]:
    return {
        "spec": spec.model_dump(mode="json"),
        "plugin": "plugins/my_arm",
        "plugin_sha256": "0" * 64,
        "slot": {"domain_id": 8, "num_domains": 12},
        "base": {"id": "xvla-tiny", "revision": None, "fingerprint": "0" * 64},
        "action_space": "ee6d",
        "rotation_layout": "rot6d_interleaved",
        "data": {
            "format": "lerobot",
            "path": "demonstrations",
            "fingerprint": "0" * 64,
            "episodes": 1,
            "frames": 1,
            "fps": 20.0,
        },
    }


def context(recording: Recording, *, spec: EmbodimentSpec | None = None, **rest: Any) -> CheckContext:
    declared = spec or recording.spec
    return CheckContext(
        spec=declared,
        reader=recording.reader,
        recording=dataclasses.replace(recording, spec=declared),
        base=rest.pop("base", resolve_base("xvla-tiny")),
        space=EE6D,
        plugin_folder=PLUGIN,
        **rest,
    )


def edited(recording: Recording, field: str, change: Callable[[np.ndarray], np.ndarray], *vectors: str) -> Recording:
    """The recording with one field's recorded numbers [L, size] changed in proprio and action, or one of them."""
    episodes = []
    for episode in recording.episodes:
        parts = {}
        for vector in vectors or ("proprio", "action"):
            slot = getattr(recording.spec, vector).slices()[field]
            values = getattr(episode, vector).copy()
            values[:, slot] = change(values[:, slot])
            parts[vector] = values
        episodes.append(dataclasses.replace(episode, **parts))
    return dataclasses.replace(recording, episodes=tuple(episodes))


def found(check: Callable[[CheckContext], Any], at: CheckContext) -> dict[tuple[str, str | None], Finding]:
    return {(finding.code, finding.field): finding for finding in check(at)}


def test_the_clean_recording_is_no_error_against_the_base(recording: Recording) -> None:
    at = context(recording)
    assert all(finding.severity == "info" for finding in against_base(at))
    drift = at.facts["drift"]["base"]
    assert drift["how"] == "nearest"
    assert drift["name"] in resolve_base("xvla-tiny").used_domains.values()
    rows = {row["field"]: row for row in drift["rows"]}
    assert {f"{vector}.position[{dim}]" for vector in ("proprio", "action") for dim in range(3)} <= set(rows)
    assert all(0 <= row["overlap"] <= 1 and 0 <= row["outside"] <= 1 for row in rows.values())


@pytest.mark.parametrize("robot", ["panda", "sawyer", "iiwa", "kinova3"])
def test_a_robot_of_the_base_is_nearest_to_its_own_row(robot: str) -> None:
    """From its own recording, where that is at hand."""
    folder = REPOSITORY / "plugins" / robot
    spec = load_plugin(folder).spec
    if not (folder / "demonstrations").is_dir():
        pytest.skip("this robot's demonstrations are not in the repository")
    measured = load_recording(open_data(spec, folder), spec, max_episodes=30)
    at = dataclasses.replace(context(measured), plugin_folder=folder)
    assert not list(against_base(at))
    assert at.facts["drift"]["base"]["name"].removesuffix("_still") == robot


@pytest.mark.parametrize(("unit", "ratio"), [("m", 1000), ("cm", 10)])
def test_a_wrong_unit_of_position_is_of_another_scale_than_every_row(
    recording: Recording, unit: str, ratio: float
) -> None:
    """The recording is in millimetres; another declared unit is off by exactly its factor."""
    raw = recording.spec.model_dump(mode="json", exclude_none=True)
    for vector in ("proprio", "action"):
        raw[vector]["fields"][0]["unit"] = unit
    result = found(against_base, context(recording, spec=EmbodimentSpec.model_validate(raw)))
    for vector in ("proprio", "action"):
        finding = result["XV511", f"{vector}.position"]
        assert finding.severity == ("error" if ratio > 50 else "warning")
        assert 0.4 * ratio < finding.numbers["ratio"] < 2.5 * ratio
        assert f"a factor of about {ratio}" in finding.measured


def test_a_recording_too_small_is_named_too(recording: Recording) -> None:
    result = found(against_base, context(edited(recording, "position", lambda values: values / 1000)))
    assert result["XV511", "action.position"].severity in ("error", "warning")
    assert "1/" in result["XV511", "action.position"].measured


def test_a_hand_elsewhere_is_new_to_the_nearest_row(recording: Recording) -> None:
    at = context(edited(recording, "position", lambda values: values + 5000.0))
    finding = found(against_base, at)["XV512", "proprio.position"]
    assert finding.severity == "info"
    assert finding.numbers["share"] == 1.0


def test_the_row_that_is_copied_is_the_one_compared_with(recording: Recording) -> None:
    raw = recording.spec.model_dump(mode="json", exclude_none=True)
    raw["prompt"] = {"init": "copy", "copy_from": 2}
    at = context(recording, spec=EmbodimentSpec.model_validate(raw))
    list(against_base(at))
    assert (at.facts["drift"]["base"]["how"], at.facts["drift"]["base"]["name"]) == ("declared", "iiwa")


def test_a_base_without_ranges_says_nothing(recording: Recording, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(resolve_base("xvla-tiny").folder, folder)
    (folder / "domains.json").write_text('{"0": "arm"}')
    at = context(recording, base=resolve_base(str(folder)))
    assert list(against_base(at)) == []
    assert "drift" not in at.facts
    assert list(against_base(context(recording, base=None))) == []


def test_the_data_an_adaptation_was_trained_with_has_not_drifted(recording: Recording, trained: Path) -> None:
    at = context(recording, against=trained)
    assert list(against_trained(at)) == []
    table = at.facts["drift"]["trained"]
    assert table["adaptation"] == "my_arm/v1"
    assert len(table["rows"]) == 8
    assert all(abs(row["shift"]) < 1 and row["overlap"] > 0.5 and row["outside"] < 0.1 for row in table["rows"])
    assert list(against_trained(context(recording))) == []


@pytest.mark.parametrize("factor", [10.0, 1000.0, 180 / np.pi, 0.001])
def test_another_scale_than_in_training_is_named_with_its_factor(
    recording: Recording, trained: Path, factor: float
) -> None:
    at = context(edited(recording, "position", lambda values: values * factor), against=trained)
    result = found(against_trained, at)
    assert {code for code, _ in result} == {"XV521"}
    for vector in ("proprio", "action"):
        finding = result["XV521", f"{vector}.position"]
        assert finding.severity == "error"
        assert finding.numbers["ratio"] == pytest.approx(factor, rel=0.2)


def test_a_moved_robot_is_shifted_in_training_deviations(recording: Recording, trained: Path) -> None:
    moved = edited(recording, "position", lambda values: values + np.array([0.0, 1000.0, 0.0]))
    result = found(against_trained, context(moved, against=trained))
    assert {field for code, field in result if code == "XV522"} == {"proprio.position[1]", "action.position[1]"}
    assert ("XV523", "action.position[1]") in result
    statistics = json.loads((trained / "stats.json").read_text())["canonical"]["action"]["position"]
    expected = 1.0 / statistics["std"][1]
    assert result["XV522", "action.position[1]"].numbers["shift"][1] == pytest.approx(expected, rel=0.1)


def test_a_field_that_never_moves_is_in_no_wrong_unit(recording: Recording) -> None:
    still = edited(recording, "position", lambda values: 0 * values)
    assert {code for code, _ in found(against_base, context(still, base=resolve_base("xvla-tiny")))} <= {"XV512"}


def test_a_frame_is_no_advice_for_a_gripper(recording: Recording, trained: Path) -> None:
    result = found(against_trained, context(edited(recording, "gripper", lambda values: values + 7), against=trained))
    fixes = [finding.fix for (code, field), finding in result.items() if code == "XV522" and "gripper" in field]
    assert fixes
    assert all(fix is not None and "frame_changes" not in fix for fix in fixes)


def test_another_contract_is_named_field_by_field(recording: Recording, trained: Path) -> None:
    raw = recording.spec.model_dump(mode="json", exclude_none=True)
    raw["control_hz"], raw["horizon_s"] = 10, 2.0
    raw["cameras"][0]["name"] = "side"
    raw["action"]["fields"][0]["name"] = "place"
    result = found(against_trained, context(recording, spec=EmbodimentSpec.model_validate(raw), against=trained))
    assert {("XV524", "action.place"), ("XV524", "action.position")} <= set(result)
    assert {field for code, field in result if code == "XV525"} == {"control_hz", "horizon_s", "cameras"}


@pytest.mark.parametrize("content", ["{}", "[]", '{"canonical": {"proprio": {"a": 1}, "action": {}}}', "not json"])
def test_damaged_statistics_are_a_finding_and_no_traceback(
    recording: Recording, trained: Path, tmp_path: Path, content: str
) -> None:
    folder = tmp_path / "my_arm/v1"
    shutil.copytree(trained, folder)
    (folder / "stats.json").write_text(content)
    group = CheckGroup(name="drift", rules=RULES, checks=CHECKS)
    report = run_checks(context(recording, against=folder), groups=[group])
    assert [finding.code for finding in report.of("error")] == ["XV008"]
    assert "stats.json" in report.of("error")[0].measured


def test_drift_is_one_of_the_built_in_checks() -> None:
    (group,) = [group for group in check_groups() if group.name == "drift"]
    assert group.checks == CHECKS
    assert all(rule.fix and rule.why for rule in group.rules)


def test_comparisons_by_hand() -> None:
    reference = Reference(
        mean=np.array([0.0]), std=np.array([2.0]), q01=np.array([-1.0]), q99=np.array([1.0]), floor=0.005
    )
    numbers = np.linspace(0.0, 2.0, 2001)[:, None]
    assert overlap(numbers, reference)[0] == pytest.approx((1.0 - 0.02) / 2.98, rel=1e-3)
    (row,) = comparison("a", numbers, reference)
    assert row["shift"] == pytest.approx(0.5)
    assert row["outside"] == pytest.approx((2.0 - 1.505) / 2.0, abs=1e-3)
    assert known_factor(990.0, 1.3) == ", a factor of about 1000"
    assert known_factor(1 / 58, 1.3) == ", a factor of about 57.3 (degrees and radians)"
    assert known_factor(3.0, 1.3) == ""


def test_ranges_are_the_statistics(reader: DatasetReader, trained: Path) -> None:
    spec = load_plugin(PLUGIN).spec
    ranges = dataset_ranges(reader, spec, Conventions(spec, EE6D))
    canonical = json.loads((trained / "stats.json").read_text())["canonical"]
    for vector in ("proprio", "action"):
        assert set(ranges[vector]) == set(canonical[vector])
        for name, entry in canonical[vector].items():
            for part in ("mean", "std", "q01", "q99"):
                assert np.allclose(getattr(ranges[vector][name], part), entry[part], atol=1e-6)
