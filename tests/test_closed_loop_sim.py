"""The simulated robots in closed loop: their environment keeps its promises, and the shipped base acts in it."""

import importlib.util
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY

if importlib.util.find_spec("robosuite") is None:
    pytest.skip("needs the [sim] extra", allow_module_level=True)

from xvla_platform.closed_loop.contract import CheckedEnvironment
from xvla_platform.closed_loop.sources import environment_source
from xvla_platform.platform.plugins import load_plugin
from xvla_platform.testing import assert_environment_conformant

pytestmark = pytest.mark.sim
MY_ARM = REPOSITORY / "plugins" / "my_arm"


def test_the_environment_keeps_its_promises() -> None:
    """Every task: spaces, clock, and equal episodes of equal seeds whatever ran before."""
    assert_environment_conformant(MY_ARM)


def test_the_other_command_names_another_cube_of_the_scene() -> None:
    """The same sentence but for the cube, for every task; and pictures only when they are asked for."""
    plugin = load_plugin(MY_ARM)
    env = CheckedEnvironment(environment_source(plugin.spec, plugin.folder)(), plugin.spec)
    try:
        for task in env.tasks:
            begin = env.reset(11, task)
            assert begin.other_instruction is not None
            own, other = begin.instruction.split(), begin.other_instruction.split()
            changed = [place for place, (a, b) in enumerate(zip(own, other, strict=True)) if a != b]
            assert own[changed[0]] in {"red", "green", "blue", "yellow"}
            assert len(changed) == 1 or task == "stack"
            state, row = begin.state, begin.state.copy()
            row[0] += 30.0
            for _ in range(20):
                moment = env.step(row, images=False)
            assert moment.images is None
            assert np.linalg.norm(moment.state[:3] - state[:3]) == pytest.approx(30.0, abs=6.0)
    finally:
        env.close()


def test_an_unstable_simulator_ends_the_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its clock goes on, nothing counts as done, the episode is cut off; and the next one is sound."""
    monkeypatch.chdir(tmp_path)
    plugin = load_plugin(MY_ARM)
    env = environment_source(plugin.spec, plugin.folder)()
    try:
        seen, _ = env.reset(seed=3, options={"task": "pick"})
        begun = seen["state"]
        hold = np.append(begun[:6], 1.0)
        seconds = [env.step(hold)[4]["seconds"] for _ in range(3)]
        env.unwrapped.table.data.qvel[:] = 1e12
        _, reward, terminated, truncated, info = env.step(hold)
        assert (reward, terminated, truncated) == (0.0, False, True)
        assert info["seconds"] > seconds[-1] > seconds[0]
        again, _ = env.reset(seed=3, options={"task": "pick"})
        assert np.array_equal(again["state"], begun)
        assert not env.step(hold)[3]
    finally:
        env.close()
    assert not list(tmp_path.iterdir())


def test_the_shipped_base_acts_on_a_robot_it_has_never_seen(
    xvla: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Two filmed episodes from registration on, within the cost that an episode may have."""
    (tmp_path / "xvla.yaml").write_text("schema_version: 1\n")
    shutil.copytree(MY_ARM, tmp_path / "plugins" / "my_arm")
    added = xvla("add-embodiment", "plugins/my_arm")
    assert added.returncode == 0, added.stderr
    words = ("eval", "my_arm/base", "--closed-loop", "--init", "mean", "--tasks", "pick", "--episodes", "2", "--json")
    done = xvla(*words, "--films", "2")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["results"]["own"]["pick"]["success"]["of"] == 2
    folder = tmp_path / report["wrote"][0]
    assert len(list((folder / "films").glob("*.mp4"))) == 2
    cost = report["cpu_seconds_an_episode"]
    assert cost["policy"] + cost["environment"] + cost["control"] < 10.0, cost
