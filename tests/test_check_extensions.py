"""`xvla check` beyond one declaration: against a trained adaptation, and with checks of an installed package."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import fill_adaptation, one_line_error, tree, write_plugin
from data_helpers import write_dataset

from xvla_platform.cli.main import main
from xvla_platform.data.statistics import compute_statistics
from xvla_platform.platform.artifact import load_manifest, seal
from xvla_platform.platform.embodiments import open_data
from xvla_platform.platform.files import write_json
from xvla_platform.platform.plugins import load_plugin
from xvla_platform.platform.registry import place
from xvla_platform.platform.workspace import Workspace

Run = Callable[..., subprocess.CompletedProcess[str]]
ACME = """
from xvla_platform.check.findings import CheckGroup, Finding, Rule
from xvla_platform.hooks import hookimpl

RULE = Rule(code="ACME101", slug="far", title="the hand is far away", why="It is.", fix="Move it.", severity="error")


def far(context):
    highest = max(float(values.max()) for values in context.recording.vector("proprio"))
    yield Finding(code="ACME101", severity="error", field="proprio", measured=f"{highest:.2f}")


@hookimpl
def register_checks():
    return [CheckGroup(name="acme", rules=(RULE,), checks=(far,))]
"""


@pytest.fixture
def xvla(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], workspace: Workspace) -> Run:
    """`main` in this process, which is quicker than a new one."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(workspace.root)
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main(words)
        output = capfd.readouterr()
        return subprocess.CompletedProcess(words, int(left.value.code or 0), output.out, output.err)

    return run


@pytest.fixture
def plugin(workspace: Workspace, robot: dict[str, Any]) -> Path:
    folder = write_plugin(workspace.plugins / "my_arm", robot)
    write_dataset(folder / "demonstrations")
    return folder


def findings(done: Any) -> dict[tuple[str, str | None], str]:
    assert done.stdout, done.stderr
    return {(item["code"], item["field"]): item["severity"] for item in json.loads(done.stdout)["findings"]}


def test_data_is_compared_with_what_an_adaptation_was_trained_with(
    xvla: Run, workspace: Workspace, plugin: Path, robot: dict[str, Any]
) -> None:
    loaded = load_plugin(plugin)

    def fill(folder: Path, version: int) -> None:
        fill_adaptation(folder, version, robot)
        write_json(folder / "stats.json", compute_statistics(open_data(loaded.spec, plugin), loaded.spec, range(3)))
        seal(folder, load_manifest(folder))

    place(workspace, "my_arm", fill)
    words = ("check", "plugins/my_arm", "--against", "my_arm/v1", "--json")
    same = findings(xvla(*words))
    assert not {code for code, _ in same if code.startswith("XV52")}

    declared = yaml.safe_load((plugin / "plugin.yaml").read_text())
    for vector in ("proprio", "action"):
        for field in declared[vector]["fields"]:
            if field["kind"] == "position":
                field["unit"] = "mm"
    write_plugin(plugin, declared)
    other = xvla(*words)
    assert other.returncode == 1
    assert findings(other)["XV521", "proprio.position"] == "error"
    missing = xvla("check", "plugins/my_arm", "--against", "my_arm/v7")
    assert "my_arm" in one_line_error(missing)


def test_an_installed_packages_checks_are_run_explained_and_refuse(
    xvla: Run, workspace: Workspace, plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    info = site / "acme_checks-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-checks\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[xvla]\nacme = acme_checks\n")
    (site / "acme_checks.py").write_text(ACME)
    monkeypatch.syspath_prepend(str(site))
    found = findings(xvla("check", "plugins/my_arm", "--json"))
    assert found["ACME101", "proprio"] == "error"
    told = xvla("check", "--explain", "ACME101")
    assert "the hand is far away" in told.stdout.lower()
    before = tree(workspace.root)
    refused = xvla("add-embodiment", "plugins/my_arm")
    assert "ACME101" in one_line_error(refused, code=1)
    assert tree(workspace.root) == before
