"""Episodes in an environment of its own physics: what is counted, kept, continued, and refused."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closed_loop_helpers import MakesSeer, MakesTable, Seer, dot_spec, page_files, write_dot_arm
from conftest import REPOSITORY

from xvla_platform.closed_loop.evaluate import evaluate_closed_loop, read_episodes
from xvla_platform.closed_loop.execution import Execution
from xvla_platform.errors import XvlaError


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dot_arm(tmp_path_factory.mktemp("dots") / "dot_arm")


@pytest.fixture
def env(plugin: Path) -> Any:
    return MakesTable(plugin)()


def test_success_time_and_approach_are_the_environments(env: Any) -> None:
    """A script that looks and reads succeeds always, in the time that its way takes; one that goes wrong does not."""
    result = evaluate_closed_loop(Seer(), env, episodes=10, seed=3)
    assert [result.summary(task=task).success.count for task in ("reach", "visit")] == [10, 10]
    assert result.summary().approached.count == 20
    for episode in result.of("own", "reach"):
        env.reset(seed=episode.seed, options={"task": "reach"})
        way = float(np.linalg.norm(env.discs[env.named])) - 0.02
        assert episode.seconds == pytest.approx(way / 0.25, abs=0.11)
        assert episode.ended == "success"
    slow = evaluate_closed_loop(Seer(speed=0.01), env, tasks=["reach"], episodes=3, time_limit_s=2.0)
    assert [(e.success, e.ended, e.seconds, e.approached) for e in slow.episodes] == [
        (False, "time limit", 2.0, None)
    ] * 3


def test_the_pages_lines_count(
    env: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Policy and environment in hand, three lines of Python give the number with its interval."""
    monkeypatch.chdir(tmp_path)
    exec(compile(page_files()["count.py"], "count.py", "exec"), {"policy": Seer(), "env": env})
    assert "50/50" in capsys.readouterr().out
    assert (tmp_path / "runs" / "mine" / "episodes.jsonl").is_file()


def test_images_are_rendered_only_when_somebody_looks(env: Any) -> None:
    """One picture an inference, and the same outcome as where every tick has one."""
    drawn = 0
    render = env._render

    def counting() -> np.ndarray:
        nonlocal drawn
        drawn += 1
        return np.asarray(render())

    env._render = counting
    episode = evaluate_closed_loop(Seer(), env, tasks=["reach"], episodes=1).episodes[0]
    assert drawn == episode.chunks
    del env.images_wanted
    env.__class__ = type("AlwaysDrawing", (type(env),), {"images_wanted": property(lambda self: True, lambda *_: None)})
    assert evaluate_closed_loop(Seer(), env, tasks=["reach"], episodes=1).episodes[0].outcome() == episode.outcome()
    assert drawn > 2 * episode.chunks


def test_outcomes_do_not_depend_on_workers_or_order(plugin: Path, tmp_path: Path) -> None:
    """Two processes give what one gives; a policy that fails now and then fails in the same episodes."""
    policy, table = MakesSeer(noise=0.03), MakesTable(plugin)
    one = evaluate_closed_loop(policy, table, tasks=["reach"], episodes=8, time_limit_s=1.2)
    two = evaluate_closed_loop(
        policy, table, tasks=["reach"], episodes=8, time_limit_s=1.2, workers=2, folder=tmp_path / "two", films=1
    )
    assert [e.outcome() for e in one.episodes] == [e.outcome() for e in two.episodes]
    assert 0 < one.summary().success.count < 8
    assert [e.outcome() for e in read_episodes(tmp_path / "two")] == [e.outcome() for e in two.episodes]
    last = evaluate_closed_loop(policy, table, tasks=["reach"], episodes=1, seed=7, time_limit_s=1.2)
    assert last.episodes[0].success == one.episodes[7].success
    assert last.episodes[0].seconds == one.episodes[7].seconds


def test_films_show_every_camera_and_the_outcome(env: Any, tmp_path: Path) -> None:
    """Ten pictures a second, a strip of five stills each, and a sheet of all strips."""
    import av
    from PIL import Image

    result = evaluate_closed_loop(Seer(), env, tasks=["reach"], episodes=3, films=2, folder=tmp_path)
    assert sorted(path.name for path in (tmp_path / "films").iterdir()) == [
        f"reach-00{i}.{kind}" for i in range(2) for kind in ("mp4", "png")
    ]
    with av.open(str(tmp_path / "films" / "reach-000.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == round(result.episodes[0].seconds * 10) + 1 + 8
    assert frames[0].shape == (280, 240, 3)
    # The outcome's green bar is there at the end and not at the beginning.
    assert frames[-1][270, 230, 1] > frames[-1][270, 230, 0] + 60
    assert abs(int(frames[0][270, 230, 1]) - int(frames[0][270, 230, 0])) < 20
    assert Image.open(tmp_path / "contact-sheet.png").size == (5 * 120, 2 * 140)


KILLED = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {repository!r}]
from closed_loop_helpers import MakesSeer, MakesTable
from xvla_platform.closed_loop.evaluate import evaluate_closed_loop
if __name__ == "__main__":
    class Slow(MakesSeer):
        def __call__(self):
            import time
            seer = super().__call__()
            act = seer.act
            seer.act = lambda *a, **k: (time.sleep(0.02), act(*a, **k))[1]
            return seer
    evaluate_closed_loop(Slow(), MakesTable(Path({plugin!r})), tasks=["reach"], episodes=40, folder=Path({folder!r}))
"""


def test_a_killed_evaluation_goes_on_where_it_was(plugin: Path, tmp_path: Path) -> None:
    """After kill -9 and half a line, finished episodes are kept and not run again; the rest is as uninterrupted."""
    code = KILLED.format(
        tests=str(REPOSITORY / "tests"), repository=str(REPOSITORY), plugin=str(plugin), folder=str(tmp_path / "run")
    )
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    lines = tmp_path / "run" / "episodes.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not lines.is_file() or lines.read_text().count("\n") < 4):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = read_episodes(tmp_path / "run")
    assert 4 <= len(kept) < 40
    with lines.open("a") as file:
        file.write('{"condition": "own", "task": "rea')
    seen: list[tuple[int, int]] = []
    seer = Seer()
    options: dict[str, Any] = {"tasks": ["reach"], "episodes": 40}
    result = evaluate_closed_loop(
        seer,
        MakesTable(plugin)(),
        folder=tmp_path / "run",
        observer=lambda episode, done, total: seen.append((done, total)),
        **options,
    )
    assert seen == [(i, 40) for i in range(1, 41)]
    assert len(seer.asked) == sum(episode.chunks for episode in result.episodes[len(kept) :])
    assert result.episodes[: len(kept)] == tuple(kept)
    whole = evaluate_closed_loop(Seer(), MakesTable(plugin)(), **options)
    assert [e.outcome() for e in result.episodes] == [e.outcome() for e in whole.episodes]
    assert json.loads((tmp_path / "run" / "results.json").read_text())["results"]["own"]["reach"]["success"]["of"] == 40
    with pytest.raises(XvlaError, match="other settings") as error:
        evaluate_closed_loop(Seer(), MakesTable(plugin)(), folder=tmp_path / "run", tasks=["reach"], episodes=41)
    assert error.value.field == "episodes"


@pytest.mark.slow
def test_a_worker_that_dies_is_one_line(plugin: Path, tmp_path: Path) -> None:
    """Whoever kills a worker (the kernel, out of memory) costs the episodes in flight, not those that were over."""
    with pytest.raises(XvlaError, match="a worker process died"):
        evaluate_closed_loop(MakesSeer(), _Dying(plugin), folder=tmp_path, tasks=["reach"], episodes=4, workers=2)
    assert [e.index for e in read_episodes(tmp_path)] in ([], [0], [1], [0, 1], [1, 0])
    with pytest.raises(XvlaError, match="several workers need what makes"):
        evaluate_closed_loop(Seer(), MakesTable(plugin), episodes=4, workers=2)


class _Dying(MakesTable):
    """Kills its process on the third reset with seed 2 or more, but not in the process of the test."""

    def __call__(self) -> Any:
        env = super().__call__()
        reset, parent = env.reset, int(os.environ.setdefault("XVLA_TEST_PARENT", str(os.getpid())))

        def dying(*, seed: int, options: Any) -> Any:
            if seed >= 2 and os.getpid() != parent:
                os.kill(os.getpid(), signal.SIGKILL)
            return reset(seed=seed, options=options)

        env.reset = dying
        return env


Break = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("where", "damage", "said"),
    [
        ("observation", lambda o: o["images"].pop("top"), "not the declared cameras; found none; allowed: top"),
        ("observation", lambda o: o["images"].update(side=o["images"]["top"]), "found side, top"),
        ("observation", lambda o: o["images"].update(top=o["images"]["top"][:32]), r"uint8 \[32, 64, 3\]; allowed"),
        ("observation", lambda o: o["images"].update(top=o["images"]["top"] / 255), r"found float64 \[64, 64, 3\]"),
        ("observation", lambda o: o["images"].update(top=[[0]]), "is not an array; found list"),
        ("observation", lambda o: o.pop("images"), r"\['images'\]: lacks an entry; found instruction, state"),
        ("observation", lambda o: o["state"].__setitem__(1, np.nan), r"\['state'\]\[1\]: is not finite"),
        ("observation", lambda o: o.update(state=np.zeros(4)), r"found float64 \[4\]; allowed: float64 \[7\]"),
        ("observation", lambda o: o.update(state=np.zeros(7, np.float32)), "found float32"),
        ("observation", lambda o: o.update(instruction=b"reach"), "is not text; found bytes"),
        ("info", lambda i: i.pop("success"), r"info\['success'\]: lacks an entry; found approached, seconds"),
        ("info", lambda i: i.update(success=1), "is not a bool; found 1"),
        ("info", lambda i: i.update(approached="red"), "is neither a bool nor None"),
        ("info", lambda i: i.update(seconds=float("nan")), "is not a finite number"),
        ("info", lambda i: i.update(seconds=-1.0), "runs backwards; found -1 after 0"),
    ],
)
def test_what_breaks_the_contract_is_one_line(env: Any, where: str, damage: Break, said: str) -> None:
    """A camera that is missing, of another size or type, a NaN, a flag that is none: named, at the first step."""
    step, env.images_wanted = env.step, True

    def broken(action: Any) -> Any:
        env.images_wanted = True
        observation, reward, terminated, truncated, info = step(action)
        damage(observation if where == "observation" else info)
        return observation, reward, terminated, truncated, info

    env.step = broken
    with pytest.raises(XvlaError, match=said) as error:
        evaluate_closed_loop(Seer(), env, tasks=["reach"], episodes=1, execution=Execution(execute=1))
    assert "\n" not in str(error.value)


def test_an_environment_that_is_none_or_fails_is_one_line(env: Any) -> None:
    """Other than a gymnasium environment, of another rate, of another action, without the task, or with a bug."""
    for change, said in (
        ({"metadata": {"control_hz": 20}}, "another rate than the robot's; found 20; allowed: 10"),
        ({"metadata": {"tasks": "reach"}}, "is not a list of names"),
        ({"metadata": {"time_limit_s": 0}}, "is not a positive number"),
        ({"action_space": dot_env_space(4)}, r"does not take a row of the action vector; found \(4,\)"),
        ({"reset": lambda **_: None}, "does not return"),
        ({"step": lambda action: 1 / 0}, "the environment failed: ZeroDivisionError"),
    ):
        kept = {name: getattr(env, name) for name in change}
        vars(env).update(change)
        with pytest.raises(XvlaError, match=said):
            evaluate_closed_loop(Seer(), env, episodes=1)
        vars(env).update(kept)
    with pytest.raises(XvlaError, match="no such task; found grasp; allowed: reach, visit"):
        evaluate_closed_loop(Seer(), env, tasks=["grasp"], episodes=1)
    for seed in (-1, 2**63):
        with pytest.raises(XvlaError, match="seed: is no seed"):
            evaluate_closed_loop(Seer(), env, episodes=1, seed=seed)
    with pytest.raises(XvlaError, match="is not a gymnasium environment; found Seer"):
        evaluate_closed_loop(Seer(), Seer(), episodes=1)


def dot_env_space(size: int) -> Any:
    from gymnasium.spaces import Box

    return Box(-1, 1, (size,), np.float64)


def test_the_spaces_are_the_robots(env: Any) -> None:
    """What the environment gives lies in the spaces that the declaration makes."""
    observation, _ = env.reset(seed=0, options={"task": "reach"})
    assert env.observation_space.contains(observation)
    assert env.action_space.shape == (dot_spec().action.size,)
