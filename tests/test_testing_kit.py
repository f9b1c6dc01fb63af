"""The conformance kit: our own readers, storages, plans and plugins keep every promise."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, write_plugin
from data_helpers import edit_json, write_dataset
from formats import FORMATS, Format
from hub_server import Hub
from kit_helpers import storage_named
from lerobot_v2_writer import write_lerobot21

from xvla_platform.data.lerobot import LEROBOT
from xvla_platform.data.plugin import register_dataset_readers
from xvla_platform.platform.plugins import build_manager, contributions
from xvla_platform.testing import (
    assert_plan_conformant,
    assert_plugin_conformant,
    assert_reader_answers,
    assert_reader_conformant,
    assert_storage_conformant,
)
from xvla_platform.testing.faults import FAULTS, CannotBePlantedError
from xvla_platform.testing.faults.views import View

READERS = {factory.name: factory for factory in register_dataset_readers()}
PLUGINS = sorted(path.parent for path in (REPOSITORY / "plugins").glob("*/plugin.yaml"))


@pytest.mark.parametrize("format", FORMATS, ids=[format.name for format in FORMATS])
def test_our_readers_keep_every_promise(format: Format, tmp_path: Path) -> None:
    assert_reader_conformant(READERS[format.reader], format.write(tmp_path / "data"))


def test_the_oldest_lerobot_version_too(tmp_path: Path) -> None:
    folder = write_lerobot21(tmp_path / "data")
    edit_json(folder / "meta" / "info.json", codebase_version="v2.0")
    assert_reader_conformant(LEROBOT, folder)


@pytest.mark.parametrize("folder", PLUGINS, ids=[folder.name for folder in PLUGINS])
def test_our_robots_keep_every_promise(folder: Path) -> None:
    if "kinematics:" in (folder / "plugin.yaml").read_text():
        pytest.importorskip("mujoco")
    assert assert_plugin_conformant(folder).name == folder.name


def test_the_worked_example_with_its_recordings() -> None:
    assert_plugin_conformant(REPOSITORY / "plugins" / "my_arm", space="ee6d", data=True)


@pytest.mark.parametrize("name", ["prompt-none", "prompt-lora", "prompt-full"])
def test_our_plans_keep_every_promise(name: str) -> None:
    factory = contributions(build_manager(), "register_plans")[name]
    assert assert_plan_conformant(factory).name == name


def test_a_shared_folder_keeps_every_promise(tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    assert_storage_conformant(storage_named("dir"), str(tmp_path / "share"))


def test_the_hub_keeps_every_promise(tmp_path: Path) -> None:
    """With the real client, in a process of its own: its settings count only before its import."""
    code = (
        "from xvla_platform.platform.storages_plugin import register_storages\n"
        "from xvla_platform.testing import assert_storage_conformant\n"
        "(hub,) = [storage for storage in register_storages() if storage.name == 'hub']\n"
        "assert_storage_conformant(hub, 'lab/kit')\n"
    )
    with Hub() as hub:
        settings = {
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": "hf_writer",
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "PYTHONPATH": str(REPOSITORY),
        }
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr


def test_the_views_that_plant_mistakes_are_readers(tmp_path: Path) -> None:
    """A planted mistake in the numbers breaks no promise about how they are read."""
    reader = READERS["lerobot"].open(write_dataset(tmp_path / "data"))
    spec = FORMATS[0].spec()
    seen = 0
    for fault in FAULTS:
        if fault.name in ("jitter", "rate_recorded"):  # these are mistakes about time itself
            continue
        try:
            planted, _ = fault.plant(reader, spec, next(iter(fault.strengths)), 0)
        except CannotBePlantedError:
            continue
        if isinstance(planted, View):
            assert_reader_answers(planted)
            seen += 1
    assert seen > 25


@pytest.mark.parametrize("change", ["normalized", "relative", "tool axes", "to the first", "threshold", "ignored"])
def test_every_convention_goes_round(robot: dict[str, Any], tmp_path: Path, change: str) -> None:
    position, rotation, gripper = robot["action"]["fields"]
    if change == "normalized":
        position["normalization"] = robot["proprio"]["fields"][0]["normalization"] = "quantile"
    elif change == "threshold":
        gripper["threshold"] = 0.03
    elif change == "ignored":
        robot["action"]["fields"].append({"name": "mode", "kind": "ignored", "size": 2, "value": 1.5})
    else:
        reference = "relative_to_first" if change == "to the first" else "relative"
        for field in (position, rotation):
            field.update(reference=reference, axes="tool" if change == "tool axes" else "frame")
    folder = write_plugin(tmp_path / "my_arm", robot)
    (folder / "README.md").write_text("A robot of these tests, with an arm, a gripper and two cameras.\n")
    assert_plugin_conformant(folder, space="ee6d")
