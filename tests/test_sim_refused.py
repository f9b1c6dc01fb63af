"""What the simulator refuses: a plugin that cannot be simulated, and commands that are none, each in one line."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

# Not importorskip: MuJoCo picks its OpenGL backend when imported, and the package chooses a headless one first.
if importlib.util.find_spec("robosuite") is None:
    pytest.skip("needs the [sim] extra", allow_module_level=True)

from xvla_platform.errors import XvlaError
from xvla_platform.sim.environment import TableEnvironment
from xvla_platform.sim.recording import record_demonstrations
from xvla_platform.sim.setup import load_setup

PLUGINS = Path(__file__).parents[1] / "plugins"

pytestmark = pytest.mark.sim


def test_an_unknown_task_or_a_short_action_is_refused(table: TableEnvironment) -> None:
    with pytest.raises(XvlaError, match="no such task"):
        table.reset(0, "juggle")
    table.reset(0)
    with pytest.raises(XvlaError, match="one finite row"):
        table.step(np.zeros(6))
    with pytest.raises(XvlaError, match="one finite row"):
        table.step(np.full(7, np.nan))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"look_at": [0.0, 0.0, 1.5], "position": [0.0, 0.0, 1.5]}, "are one point"),
        ({"look_at": [0.0, 0.0, 0.8], "position": [0.0, 0.0, 1.5], "up": [0, 0, 1]}, "no direction across the view"),
    ],
)
def test_a_camera_that_looks_nowhere_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    """Its pose would be no number, which the simulator accepts."""
    folder = shutil.copytree(PLUGINS / "my_arm", tmp_path / "my_arm", ignore=shutil.ignore_patterns("demonstrations"))
    sim = yaml.safe_load((folder / "sim.yaml").read_text())
    sim["cameras"]["front"] |= change
    (folder / "sim.yaml").write_text(yaml.safe_dump(sim))
    with pytest.raises(XvlaError, match=words):
        load_setup(folder)


@pytest.mark.slow
def test_an_arm_that_cannot_be_is_one_line_with_several_workers_too(tmp_path: Path) -> None:
    """A pool passes on no error of what its workers begin with."""
    folder = shutil.copytree(PLUGINS / "my_arm", tmp_path / "my_arm", ignore=shutil.ignore_patterns("demonstrations"))
    text = (folder / "sim.yaml").read_text()
    for right, wrong, words in (
        ("robot: UR5e", "robot: UR55", "UR55"),
        ("robot: UR5e", "robot: UR5e\n    home: [0.0, 1.0]", "home of UR5e: one angle a joint; found 2; allowed: 6"),
    ):
        (folder / "sim.yaml").write_text(text.replace(right, wrong))
        for workers in (1, 2):
            with pytest.raises(XvlaError, match=words):
                record_demonstrations(folder, episodes=2, workers=workers)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_plugin_without_a_simulator_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plugin.yaml").write_text((PLUGINS / "my_arm" / "plugin.yaml").read_text())
    with pytest.raises(XvlaError, match="cannot be simulated"):
        load_setup(tmp_path)
