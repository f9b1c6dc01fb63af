"""The environment of docs/evaluation.md, its robot with demonstrations, and a script that looks and reads."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from adapt_helpers import write_small_base
from conftest import REPOSITORY, make_record

from xvla_platform.data.lerobot_video import VideoSettings
from xvla_platform.data.lerobot_writer import CameraColumn, LeRobotWriter, VectorColumn
from xvla_platform.platform.hookspecs import EnvironmentRequest
from xvla_platform.platform.plugins import load_module
from xvla_platform.platform.workspace import CONFIG_NAME, CONFIG_TEXT
from xvla_platform.policy.policy import ActionChunk, Observation
from xvla_platform.specs.embodiment import EmbodimentSpec

PAGE = REPOSITORY / "docs" / "evaluation.md"
BLOCK = re.compile(r"^```\w+ title=\"([^\"]+)\"\n(.*?)^```$", re.DOTALL | re.MULTILINE)
STILL = (0.1, 0.0, 0.0, 0.0, 1.0)
COLOURS = {"red": (210, 40, 40), "green": (40, 170, 60), "blue": (50, 70, 220)}


def page_files() -> dict[str, str]:
    """The page's files by name."""
    return dict(BLOCK.findall(PAGE.read_text(encoding="utf-8")))


def write_dot_arm(folder: Path) -> Path:
    """The page's plugin folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("plugin.yaml", "plugin.py"):
        (folder / name).write_text(page_files()[name], encoding="utf-8")
    return folder


def dot_spec() -> EmbodimentSpec:
    return EmbodimentSpec.model_validate(yaml.safe_load(page_files()["plugin.yaml"]))


class MakesTable:
    """The page's environment, here or in a worker process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self) -> Any:
        request = EnvironmentRequest(spec=dot_spec(), plugin_folder=self.folder, options={})
        return load_module(self.folder / "plugin.py").Table(request)


class Seer:
    """Finds the named colour in the picture and goes there at `speed`; where it sees none it stays where it is.

    `noise` (m) is added to the place it goes to, drawn from the seed of the chunk: a policy that fails now and then.
    """

    def __init__(self, *, noise: float = 0.0, speed: float = 0.25) -> None:
        self.record = make_record(yaml.safe_load(page_files()["plugin.yaml"]))
        self.noise = noise
        self.speed = speed
        self.asked: list[Observation] = []

    def reset(self) -> None:
        """A script remembers nothing."""

    def act(self, observation: Observation, *, first_state: Any, seed: int) -> ActionChunk:
        self.asked.append(observation)
        place = self._find(observation)
        hand = observation.state[:2]
        target = hand if place is None else place
        target = target + np.random.default_rng(seed).normal(0.0, self.noise, 2) if self.noise else target
        times = np.arange(1, 11) / 10
        way = target - hand
        share = np.minimum(1.0, times * self.speed / max(float(np.linalg.norm(way)), 1e-9))
        points = np.column_stack([hand + share[:, None] * way, np.tile(STILL, (10, 1))])
        fields = {"position": points[:, :3], "rotation": points[:, 3:6], "gripper": points[:, 6:]}
        return ActionChunk(times=times, fields=fields, columns=points, model=points.astype(np.float32))

    def _find(self, observation: Observation) -> np.ndarray | None:
        colours = [colour for colour in COLOURS if colour in observation.instruction]
        if not colours:
            return None
        rows, columns = np.nonzero((observation.images["top"] == COLOURS[colours[0]]).all(axis=-1))
        return np.array([columns.mean() - 31.5, 31.5 - rows.mean()]) * 0.4 / 64 if len(rows) else None


class MakesSeer:
    """A `Seer`, here or in a worker process."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def __call__(self) -> Seer:
        return Seer(**self.options)


def record_dots(folder: Path, episodes: int = 10) -> Path:
    """Demonstrations of the page's environment: the `Seer` at work, as a LeRobot dataset beside the plugin."""
    env, seer = MakesTable(folder)(), Seer(noise=0.005)
    names = ("x", "y", "z", "a", "b", "c", "gripper")
    with LeRobotWriter(
        folder / "demonstrations",
        fps=10,
        vectors=[VectorColumn("observation.state", names), VectorColumn("action", names)],
        cameras=[CameraColumn("observation.images.top", 64, 64)],
        video=VideoSettings(gop=4, preset="ultrafast"),
    ) as writer:
        for episode in range(episodes):
            seen, _ = env.reset(seed=1000 + episode, options={"task": "reach"})
            states, actions, pictures, done = [], [], [], False
            while not done or len(states) < 12:
                assert len(states) < 60
                chunk = seer.act(_observation(seen), first_state=None, seed=1000 * episode + len(states))
                states.append(seen["state"])
                actions.append(chunk.columns[0])
                pictures.append(seen["images"]["top"])
                seen, _, reached, _, _ = env.step(chunk.columns[0])
                done = done or reached
            vectors = {"observation.state": np.stack(states), "action": np.stack(actions)}
            writer.add_episode(seen["instruction"], vectors, {"observation.images.top": np.stack(pictures)})
    return folder


def _observation(seen: Mapping[str, Any]) -> Observation:
    return Observation(images=seen["images"], state=seen["state"], instruction=seen["instruction"])


def write_dot_place(root: Path) -> Path:
    """A workspace with a small base and the page's robot with its recording."""
    root.mkdir()
    (root / CONFIG_NAME).write_text(CONFIG_TEXT)
    write_small_base(root / "base", language_max_length=32)
    record_dots(write_dot_arm(root / "plugins" / "dot_arm"))
    return root
