"""What a run trains and measures, loaded: one base, every robot's splits with features, every slot's start."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xvla_platform.adapt.feature_cache import FeatureCache, open_cache
from xvla_platform.adapt.initialise import Initialisation, choose_start
from xvla_platform.adapt.launch import on_first
from xvla_platform.adapt.robot_data import Split, bare_split, split_samples, with_frames
from xvla_platform.adapt.setting import Robot, Setting, start_of
from xvla_platform.adapt.sources import Source
from xvla_platform.adapt.start import check_start, stages_in_loop
from xvla_platform.data.binding import Binding
from xvla_platform.modelling.checkpoint import load_model
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.processor import Processor
from xvla_platform.modelling.slot import write_rows
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.platform.embodiments import base_space


@dataclass(frozen=True, kw_only=True)
class LoadedRobot:
    """One robot's data as the model sees it, and where its slot started."""

    robot: Robot
    processor: Processor
    binding: Binding
    splits: dict[str, Split]
    initial: Initialisation

    @property
    def name(self) -> str:
        return self.robot.name

    @property
    def domain_id(self) -> int:
        return self.robot.domain_id

    @property
    def train(self) -> Source:
        return self.splits["train"].source

    @property
    def target(self) -> NDArray[np.float32]:
        """Recorded test chunks [n, T, dim]."""
        return self.splits["test"].source.action.numpy()


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The base and the robots.

    Attributes:
        in_loop: Names of the stages that train the encoder.
    """

    model: XVLA
    robots: tuple[LoadedRobot, ...]
    in_loop: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """A robot's splits before their features are there."""

    robot: Robot
    processor: Processor
    binding: Binding
    splits: dict[str, Split]
    cache: FeatureCache


def load(setting: Setting) -> Loaded:
    """Open every robot's data, encode what no run has encoded yet, and fill the slots."""
    base, plan, accelerator = setting.base, setting.run.plan, setting.accelerator
    for robot in setting.robots:
        check_start(robot.record, base, plan, robot.reader, accelerator.num_processes)
    in_loop = stages_in_loop(plan, base)
    config = XVLAConfig.from_folder(base.folder)
    processor = Processor.from_folder(base.folder, config)
    opened = [_open(setting, robot, config, processor, in_loop) for robot in setting.robots]
    encoder_needed = bool(in_loop) or any(not one.cache.plan.cached for one in opened)
    model = load_model(
        base.folder,
        device=accelerator.device,
        with_vlm=encoder_needed or not all(one.cache.complete for one in opened),
        num_domains=setting.robots[0].record.slot.num_domains,
    )
    robots = tuple(_fill(setting, one, model, in_loop) for one in opened)
    if not encoder_needed:
        model.vlm = None  # from here on only its features are needed
    return Loaded(model=model, robots=robots, in_loop=in_loop)


def _open(setting: Setting, robot: Robot, config: XVLAConfig, processor: Processor, in_loop: frozenset[str]) -> _Opened:
    record, base = robot.record, setting.base
    processor = processor.for_robot(record.spec)
    folder = setting.workspace.embodiments / record.spec.name
    binding = Binding(record.spec, base_space(base), record.rotation_layout, robot.statistics, folder=folder)
    parts = split_samples(record, robot.reader, binding, config.num_actions, setting.run.plan.demonstrations)
    splits = {
        name: bare_split(name, episodes, samples, record=record, processor=processor, config=config)
        for name, (episodes, samples) in parts.items()
    }
    cache = open_cache(setting, record, splits, processor, config, in_loop)
    say(setting, robot, f"features  {cache.plan.reason}")
    return _Opened(robot=robot, processor=processor, binding=binding, splits=splits, cache=cache)


def _fill(setting: Setting, one: _Opened, model: XVLA, in_loop: frozenset[str]) -> LoadedRobot:
    """A robot's features or frames, and the first numbers of its slot."""
    splits, cached, plan = one.cache.fill(one.splits, model), one.cache.plan.cached, setting.run.plan
    for name in splits if in_loop else [] if cached else ["train"]:
        splits[name] = with_frames(splits[name], one.processor, robot_scratch(setting, one.robot), setting.progress)
    record, used = one.robot.record, setting.base.used_domains
    domain, start = record.slot.domain_id, start_of(plan, record)
    # Measured by the first process for all: what one of them chose by a rounding would not be what the others did.
    initial, rows = on_first(
        setting.accelerator, lambda: choose_start(model, domain, start, used, splits, one.processor, plan.seed)
    )
    write_rows(model, domain, rows)
    for line in initial.lines:
        say(setting, one.robot, f"slot {domain}  {line}")
    return LoadedRobot(robot=one.robot, processor=one.processor, binding=one.binding, splits=splits, initial=initial)


def robot_scratch(setting: Setting, robot: Robot) -> Path:
    """Where this process keeps what of a robot's data does not fit into memory."""
    return setting.scratch if len(setting.robots) == 1 else setting.scratch / robot.name


def say(setting: Setting, robot: Robot, line: str) -> None:
    """A note that names its robot where there are several."""
    setting.note(line if len(setting.robots) == 1 else f"{robot.name}: {line}")
