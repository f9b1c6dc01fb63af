"""Domains: what is known of a base's rows, read from the shipped table, written by pretraining, shown by a command."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from conftest import REPOSITORY, write_base
from data_helpers import make_spec, write_dataset

from xvla_platform.adapt.domain_record import measure_domains, record_domain
from xvla_platform.cli.main import cli
from xvla_platform.data.conventions import Conventions
from xvla_platform.data.lerobot import open_lerobot
from xvla_platform.data.vectors import read_vectors
from xvla_platform.errors import XvlaError
from xvla_platform.platform.bases import resolve_base, shipped_bases
from xvla_platform.platform.domains import domain_table, domains_json, published_domains, read_domains
from xvla_platform.platform.workspace import Workspace
from xvla_platform.specs.domain import GripperRule
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.specs.fields import ROTATION_SIZE

# id: rate, horizon, tail margin of the public code's handlers
PUBLISHED = {
    0: (5, 5, 10),
    1: (3, 10, 6),
    2: (30, 1, 20),
    3: (30, 1, 10),
    4: (5, 5, 15),
    5: (30, 2, 60),
    6: (30, 1, 10),
    7: (30, 1, 30),
    8: (30, 1, 15),
    9: (30, 4, 30),
    10: (30, 2, 30),
    11: (30, 4, 30),
    12: (30, 4, 30),
    13: (15, 4, 30),
    14: (15, 4, 30),
    15: (30, 4, 30),
    16: (30, 4, 30),
    17: (30, 4, 30),
    18: (10, 3, 10),
}


def test_the_published_table_is_that_of_the_public_code() -> None:
    table = published_domains()
    assert {d.domain_id: (d.control_hz, d.horizon_s, d.tail_margin) for d in table.domains} == PUBLISHED
    assert [d.domain_id for d in table.domains if d.pretrained] == list(range(11, 18))
    for domain in table.domains:
        assert domain.rotation_source is None or domain.rotation_source in ROTATION_SIZE
        assert domain.gripper is not None
    layouts = {d.name: d.rotation_layout for d in table.domains}
    assert layouts["LIBERO"] == "rot6d_columns"
    assert layouts["Bridge"] == layouts["AIR-AGILEX-HQ"] == "rot6d_interleaved"
    assert layouts["AIRBOT"] is None  # precomputed in a layout that nobody published


@pytest.mark.parametrize(
    ("rule", "recorded", "closed"),
    [
        ({"rule": "recorded"}, 0.25, 0.25),
        ({"rule": "one_minus"}, 1.0, 0.0),
        ({"rule": "below", "at": 0.02}, 0.01, 1.0),
        ({"rule": "below", "at": 0.02}, 0.02, 0.0),
        ({"rule": "above", "at": 2.5}, 2.6, 1.0),
        ({"rule": "stroke", "open": 100, "closed": 0}, 25, 0.75),
    ],
)
def test_gripper_rules(rule: dict[str, Any], recorded: float, closed: float) -> None:
    assert GripperRule.model_validate(rule).closedness(recorded) == closed


@pytest.mark.parametrize(
    "rule", [{"rule": "above"}, {"rule": "recorded", "at": 1}, {"rule": "stroke", "open": 1}, {"rule": "guess"}]
)
def test_a_gripper_rule_is_whole(rule: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"go with|goes with|Input should be"):
        GripperRule.model_validate(rule)


def test_public_bases_are_known_by_their_id(tmp_path: Path) -> None:
    table = read_domains(tmp_path, "2toINF/X-VLA-Libero", 30)
    assert not table.assumed
    assert table.domains[3].name == "LIBERO"
    assert not read_domains(tmp_path, "lerobot/xvla-base", 30).assumed
    assert read_domains(tmp_path, "someone/finetuned", 30).assumed
    with pytest.raises(XvlaError, match=r"Add domains\.json"):
        read_domains(tmp_path, "2toINF/X-VLA-Pt", 12)


def test_a_bases_own_file_goes_before_the_table_in_both_forms(tmp_path: Path) -> None:
    (tmp_path / "domains.json").write_text(json.dumps({"1": "arm", "0": {"name": "other", "control_hz": 12}}))
    table = read_domains(tmp_path, "2toINF/X-VLA-Pt", 30)
    assert [(d.domain_id, d.name, d.control_hz) for d in table.domains.values()] == [(0, "other", 12), (1, "arm", None)]
    assert domains_json(table.domains) == {"0": {"name": "other", "control_hz": 12}, "1": "arm"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"0": {"name": "arm", "speed": 1}}, "unknown field"),
        ({"0": {"control_hz": 5}}, "required field is missing"),
        ({"0": {"name": "arm", "control_hz": -5}}, "greater than 0"),
        ({"0": 5}, "expected a mapping"),
        ({"zero": "arm"}, "expected domain id to name"),
        (["arm"], "expected domain id to name"),
        ({"40": "arm"}, "names a domain id"),
        ({"-1": "arm"}, "names a domain id"),
    ],
)
def test_a_damaged_file_is_one_clear_line(tmp_path: Path, content: Any, message: str) -> None:
    (tmp_path / "domains.json").write_text(json.dumps(content))
    with pytest.raises(XvlaError, match=message):
        read_domains(tmp_path, "base", 30)


def test_a_rows_ranges_are_those_of_its_recording(tmp_path: Path) -> None:
    """Metres and closedness by hand, from a recording in millimetres and per cent; through JSON and back."""
    spec = make_spec()
    write_dataset(tmp_path / "set")
    reader = open_lerobot(tmp_path / "set")
    row = record_domain(4, "tester", spec, reader, conventions=Conventions(spec), rotation_layout="rot6d_columns")
    assert (row.domain_id, row.control_hz, row.horizon_s) == (4, spec.control_hz, spec.horizon_s)
    assert row.rotation_layout == "rot6d_columns"
    assert row.rotation_source == next(f.format for f in spec.action.fields if f.kind == "rotation")
    states = np.concatenate(
        [read_vectors(reader, e, (("proprio", spec.proprio),))["proprio"] for e in range(len(reader.episodes))]
    )
    position = next(f for f in spec.proprio.fields if f.kind == "position")
    metres = states[:, spec.proprio.slices()[position.name]] * {"m": 1, "cm": 0.01, "mm": 0.001}[position.unit]
    assert np.allclose(row.proprio[position.name].mean, metres.mean(axis=0), atol=1e-6)
    assert np.allclose(row.proprio[position.name].q99, np.quantile(metres, 0.99, axis=0), atol=1e-6)
    assert not any(field.kind == "rotation" for field in row.action.values())
    (tmp_path / "domains.json").write_text(json.dumps(domains_json({4: row})))
    assert read_domains(tmp_path, "base", 8).domains[4] == row


@pytest.mark.parametrize("name", sorted(shipped_bases()))
def test_shipped_bases_know_all_of_their_rows(name: str) -> None:
    """Rate, horizon and gripper are those of the plugins; every position lies in an arm's reach."""
    base = resolve_base(name)
    recipe = yaml.safe_load((base.folder / "recipe.yaml").read_text())
    table = domain_table(base)
    assert {d["domain_id"]: d["name"] for d in recipe["domains"]} == base.used_domains
    for domain in recipe["domains"]:
        row = table.domains[domain["domain_id"]]
        plugin = yaml.safe_load((REPOSITORY / domain["plugin"] / "plugin.yaml").read_text())
        spec = EmbodimentSpec.model_validate(plugin)
        assert (row.control_hz, row.horizon_s) == (spec.control_hz, spec.horizon_s)
        gripper = next(f for f in spec.action.fields if f.kind == "gripper")
        assert row.gripper is not None
        assert (row.gripper.closedness(gripper.open), row.gripper.closedness(gripper.closed)) == (0, 1)
        for ranges in (row.proprio, row.action):
            position = next(field for field in ranges.values() if field.kind == "position")  # of joints, by kinematics
            for low, high in zip(position.q01, position.q99, strict=True):
                assert -1.5 < low <= high < 1.5
            assert math.isclose(ranges["gripper"].q01[0], 0, abs_tol=0.05)


def test_measuring_needs_the_recipe_and_leaves_the_weights_alone(tmp_path: Path) -> None:
    base = resolve_base(str(write_base(tmp_path / "base")))
    before = (base.folder / "domains.json").read_bytes()
    with pytest.raises(XvlaError, match="with its recipe"):
        measure_domains(Workspace.find(tmp_path), base)
    recipe = shipped_bases()["xvla-tiny"] / "recipe.yaml"
    shutil.copy(recipe, base.folder / "recipe.yaml")
    for robot in ("panda", "sawyer", "iiwa", "kinova3", "jaco"):
        (tmp_path / "plugins" / robot).mkdir(parents=True)
        shutil.copy(REPOSITORY / "plugins" / robot / "plugin.yaml", tmp_path / "plugins" / robot)
    with pytest.raises(XvlaError, match="no demonstrations"):
        measure_domains(Workspace.find(tmp_path), base)
    assert (base.folder / "domains.json").read_bytes() == before


def test_the_command_shows_rows_and_free_ones(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["domains", "--workspace", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "kinova3" in result.output
    assert "free      10, 11" in result.output
    result = CliRunner().invoke(cli, ["domains", "--json", "--workspace", str(tmp_path)])
    found = json.loads(result.output)
    assert found["domains"]["1"]["horizon_s"] == 1.2
    assert found["free"] == [10, 11]
    assert found["wrote"] == []
