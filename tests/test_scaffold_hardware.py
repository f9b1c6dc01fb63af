"""A LeRobot hardware package's declarations, read without LeRobot, without drivers and without hardware."""

import subprocess
import sys
from pathlib import Path

import pytest

from xvla_platform.errors import XvlaError
from xvla_platform.scaffold.draft import resolve
from xvla_platform.scaffold.hardware import hardware_features
from xvla_platform.scaffold.infer import infer
from xvla_platform.scaffold.sources import open_source

CONFIG = """
from dataclasses import dataclass, field
from lerobot.cameras import CameraConfig
from lerobot.cameras.opencv import OpenCVCameraConfig
from lerobot.robots import RobotConfig

@RobotConfig.register_subclass("tester")
@dataclass
class TesterConfig(RobotConfig):
    port: str
    cameras: dict[str, CameraConfig] = field(default_factory=lambda: {
        "front": OpenCVCameraConfig(index_or_path=0, fps=30, width=64, height=48),
    })
"""
ROBOT = """
from functools import cached_property
from lerobot.cameras import make_cameras_from_configs
from lerobot.motors import Motor, MotorNormMode
from lerobot.motors.feetech import FeetechMotorsBus
from lerobot.robots import Robot
from lerobot.utils.decorators import check_if_not_connected
import a_driver_that_nobody_has as driver
from .config_tester import TesterConfig

class Tester(Robot):
    config_class = TesterConfig
    name = "tester_arm"

    def __init__(self, config):
        super().__init__(config)
        self.bus = FeetechMotorsBus(port=config.port, motors={
            **{f"joint_{i}": Motor(i, "sts3215", MotorNormMode.DEGREES) for i in range(5)},
            "gripper": Motor(6, "sts3215", MotorNormMode.RANGE_0_100),
        })
        self.cameras = make_cameras_from_configs(config.cameras)
        BODY

    @property
    def observation_features(self):
        views = {name: (camera.height, camera.width, 3) for name, camera in self.cameras.items()}
        return {**{f"{motor}.pos": float for motor in self.bus.motors}, **views}

    @cached_property
    def action_features(self):
        return {f"{motor}.pos": float for motor in self.bus.motors}

    @check_if_not_connected
    def send_action(self, action):
        return driver.send(action)
"""


def package(folder: Path, *, body: str = "", robot: str = ROBOT, init: str = "") -> Path:
    """The sources of `lerobot_robot_tester`."""
    home = folder / "lerobot_robot_tester"
    home.mkdir(parents=True)
    (home / "config_tester.py").write_text(CONFIG)
    (home / "tester.py").write_text(robot.replace("BODY", body))
    (home / "__init__.py").write_text(f"from .config_tester import *\nfrom .tester import *\n{init}")
    return home


def refused(text: str | Path) -> str:
    with pytest.raises(XvlaError) as caught:
        hardware_features(str(text))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_features_are_those_that_a_dataset_would_have(tmp_path: Path) -> None:
    found = hardware_features(str(package(tmp_path)))
    motors = [*(f"joint_{i}.pos" for i in range(5)), "gripper.pos"]
    assert found.robot_type == "tester_arm"
    assert found.features["observation.state"].names == motors
    assert found.features["action"].names == motors
    assert found.features["observation.images.front"].image_size == (48, 64)
    assert found.units["joint_3"][0] == "deg"
    assert found.units["gripper"][0] == "percent"
    assert "lerobot" not in sys.modules


def test_a_draft_of_a_package_leaves_blank_what_only_a_recording_tells(tmp_path: Path) -> None:
    source = open_source(str(package(tmp_path)), None, ())
    plain = resolve(infer(source, "robot").draft)
    joints, jaw = plain["proprio"]["fields"]
    assert (joints["kind"], joints["size"], joints["unit"]) == ("joint", 5, "deg")
    assert (jaw["kind"], jaw["unit"], jaw["open"], jaw["closed"]) == ("gripper", "percent", "???", "???")
    assert plain["control_hz"] == "???"
    assert plain["dataset"]["path"] == "???"
    assert plain["cameras"][0]["resolution"] == [48, 64]
    assert plain["action"]["fields"][0]["reference"] == "absolute"


def test_an_installed_package_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert hardware_features("lerobot_robot_tester").robot_type == "tester_arm"
    assert hardware_features("lerobot-robot-tester:Tester").robot_type == "tester_arm"


def test_a_project_around_the_package_will_do(tmp_path: Path) -> None:
    project = tmp_path / "lerobot-robot-tester"
    package(project)
    assert hardware_features(str(project)).robot_type == "tester_arm"


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    home = package(tmp_path)
    before = sorted(path.name for path in home.rglob("*"))
    hardware_features(str(home))
    assert sorted(path.name for path in home.rglob("*")) == before


@pytest.mark.parametrize(
    "body",
    [
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "open('/dev/ttyUSB0', 'rb')",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.system('true')",
    ],
)
def test_reaching_for_hardware_is_refused(tmp_path: Path, body: str) -> None:
    assert "reaches for hardware" in refused(package(tmp_path, body=body))


def test_an_answer_that_hangs_on_a_missing_package_is_refused_by_its_name(tmp_path: Path) -> None:
    robot = ROBOT.replace("for motor in self.bus.motors}, **views", "for motor in driver.MOTORS}, **views")
    line = refused(package(tmp_path, robot=robot))
    assert "a_driver_that_nobody_has.MOTORS, which is not installed here" in line


def test_several_robots_are_named(tmp_path: Path) -> None:
    home = package(tmp_path, init="class Other(Tester):\n    name = 'other'\n")
    assert "lerobot_robot_tester:Other, lerobot_robot_tester:Tester" in refused(home)
    assert hardware_features(f"{home}:Other").robot_type == "other"
    assert "no such robot" in refused(f"{home}:Third")


@pytest.mark.parametrize(
    ("init", "words"),
    [
        ("raise ValueError('broken')", "ValueError: broken"),
        ("syntax error", "SyntaxError"),
        ("import os; os._exit(3)", "exit code 3"),
        ("print('noise'); import sys; sys.exit('leaves')", "leaves"),
    ],
)
def test_a_package_that_cannot_be_imported_is_one_line(tmp_path: Path, init: str, words: str) -> None:
    assert words in refused(package(tmp_path, init=init))


def test_a_package_without_a_robot_or_that_is_not_there(tmp_path: Path) -> None:
    empty = tmp_path / "lerobot_robot_empty"
    empty.mkdir()
    assert "holds no package" in refused(empty)
    (empty / "__init__.py").write_text("")
    assert "no robot class" in refused(empty)
    assert "no such package is installed" in refused("lerobot_robot_that_is_not_there")


def test_the_probe_needs_nothing_but_python() -> None:
    """It may be run by any interpreter, so it must not import this package."""
    probe = Path(__file__).parents[1] / "xvla_platform" / "scaffold" / "hardware_probe.py"
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(probe), "json"], capture_output=True, text=True, check=True, timeout=60
    )
    assert '"robots": []' in done.stdout.splitlines()[-1]
