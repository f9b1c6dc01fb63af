"""What travels: no path of its maker's disk, no choice of code, and a base that whoever pulls it names himself."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from adapt_helpers import command, write_place, write_small_base
from conftest import fill_adaptation, make_record, one_line_error

from xvla_platform.errors import XvlaError
from xvla_platform.evaluation.report import OTHER_DEVICE, SAME_DEVICE, example_threshold
from xvla_platform.platform.artifact import load_manifest, seal, verify
from xvla_platform.platform.card import model_card
from xvla_platform.platform.hub_errors import hub_errors
from xvla_platform.platform.workspace import Workspace


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one prompt-only adaptation over a base in a folder of its own."""
    root = write_place(tmp_path_factory.mktemp("portable") / "place")
    assert command("add-embodiment", "plugins/my_arm", "--base", "base", cwd=root) == 0
    words = ("adapt", "--embodiment", "my_arm", "--then", "none", "--steps", "2", "--batch-size", "4")
    assert command(*words, cwd=root) == 0
    return root


def test_no_path_of_the_makers_disk_travels(place: Path) -> None:
    folder = place / "registry" / "my_arm" / "v1"
    assert load_manifest(folder).base.id == "./base"
    for name in ("manifest.json", "embodiment.yaml", "adapter_config.json", "README.md", "plan.yaml"):
        assert str(place) not in (folder / name).read_text(), name
    card = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
    assert "base_model" not in card


def test_it_is_found_from_any_folder_of_the_workspace(place: Path) -> None:
    """Records are relative to the workspace, not to where the command runs."""
    assert command("eval", "my_arm", cwd=place / "plugins" / "my_arm") == 0
    assert command("eval", "my_arm", "--workspace", str(place), cwd=place.parent) == 0


def test_a_pulled_adaptation_is_measured_over_a_base_elsewhere(
    place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """`--base` names it; other weights are refused; without it the error names the base that is missing."""
    here = tmp_path / "here"
    assert command("init", str(here), cwd=tmp_path) == 0
    assert command("pull", f"dir:{place / 'registry' / 'my_arm'}", cwd=here) == 0
    capfd.readouterr()
    shutil.rmtree(here / "plugins" / "my_arm")
    assert command("eval", "my_arm", cwd=here) == 2
    assert "./base" in capfd.readouterr().err
    shutil.copytree(place / "base", tmp_path / "copy")
    assert command("eval", "my_arm", "--base", str(tmp_path / "copy"), cwd=here) == 0
    assert "example was answered again" in capfd.readouterr().out
    write_small_base(tmp_path / "other", seed=9)
    assert command("eval", "my_arm", "--base", str(tmp_path / "other"), cwd=here) == 2
    assert "not those the adaptation was made for" in capfd.readouterr().err


@pytest.mark.parametrize("plugin", ["/tmp/elsewhere", "plugins/../../elsewhere", "~/elsewhere"])
def test_a_pulled_record_chooses_no_plugin(
    xvla: Any, tmp_path: Path, robot: dict[str, Any], plugin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plugin may hold code, and the record's maker must not say which of this machine's runs."""
    folder, here = tmp_path / "share" / "my_arm" / "v1", tmp_path / "here"
    folder.mkdir(parents=True)
    here.mkdir()
    fill_adaptation(folder, 1, robot)
    text = (folder / "embodiment.yaml").read_text()
    (folder / "embodiment.yaml").write_text(text.replace("plugin: plugins/my_arm", f"plugin: {plugin}"))
    seal(folder, load_manifest(folder))
    line = one_line_error(xvla("pull", f"dir:{folder}", cwd=here))
    assert f"plugin: names a plugin folder outside the workspace; found {plugin}" in line
    assert not (here / "registry").exists()


def test_after_full_tuning_the_folder_is_its_own_base(adapted: Workspace, robot: dict[str, Any]) -> None:
    """peft is not led to the untuned base, and the card claims no more than was tuned."""
    folder = adapted.registry / "my_arm" / "v1"
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "user/base", "revision": "abc", "r": 4}')
    manifest = load_manifest(folder)
    seal(folder, manifest)
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "user/base"
    full = manifest.model_copy(update={"tuning": "full"})
    seal(folder, full)
    written = json.loads((folder / "adapter_config.json").read_text())
    assert written == {"base_model_name_or_path": ".", "revision": None, "r": 4}
    verify(folder)
    card = model_card(full, make_record(robot), {})
    assert "All weights" not in card
    assert "what it does not hold is the base's" in card


def test_the_example_may_differ_on_another_device(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"device": "cpu, float32"}')
    assert example_threshold(tmp_path, "cpu, float32") == SAME_DEVICE
    assert example_threshold(tmp_path, "cuda (NVIDIA H100), bfloat16 encoder") == OTHER_DEVICE


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (RuntimeError("Error while uploading 'a.json'"), "could not push: Error while uploading"),
        (OSError(28, "No space left on device", "a.json"), "disk full while writing a.json"),
        (OSError("odd"), "could not push: odd"),
    ],
)
def test_whatever_stops_a_transfer_is_one_line(fault: Exception, message: str) -> None:
    with pytest.raises(XvlaError, match=message), hub_errors("user/name", None, "push"):
        raise fault
