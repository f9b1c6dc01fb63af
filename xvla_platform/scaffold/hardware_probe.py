"""Run in a process of its own: asks a LeRobot hardware package which features its robot declares.

In: the package's name, optionally `:Class`, and the folder it lies in. Out: one JSON object on the last line of
stdout. LeRobot requires that features are known before a robot is connected, so an unconnected instance made from
its default configuration is asked. Packages that are not installed, LeRobot itself among them, are replaced by
stand-ins that know nothing: an answer that depends on one is refused. Standard library only: any Python can run it.
"""

import dataclasses
import enum
import importlib
import importlib.abc
import importlib.machinery
import inspect
import json
import pkgutil
import sys
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

NUMBERS = (float, int, bool)


class NotKnown(Exception):
    """The answer depends on a package that is not installed."""


class StandIn:
    """Anything from a package that is not there: it can be named, called and inherited from, but holds no answer."""

    def __init__(self, name: str, **attributes: Any) -> None:
        self.__dict__.update(attributes, _name=name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        self.__dict__[name] = StandIn(f"{self._name}.{name}")
        return self.__dict__[name]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        decorated = args[0] if len(args) == 1 and not kwargs else None
        if inspect.isfunction(decorated) or inspect.isclass(decorated):
            return decorated
        return StandIn(self._name, **kwargs)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (type(self._name.rpartition(".")[2], (Missing,), {"_name": self._name}),)

    def __getitem__(self, key: Any) -> "StandIn":
        return self

    def __or__(self, other: Any) -> Any:
        return typing.Any

    __ror__ = __or__

    def __iter__(self) -> Iterator[Any]:
        raise NotKnown(self._name)

    __len__ = __bool__ = __int__ = __float__ = __str__ = __iter__  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{self._name}>"


class Missing:
    """Base of a class whose real base is in a package that is not there."""

    _name = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.__dict__.update(kwargs)
        if args:
            self.__dict__.setdefault("config", args[0])

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return StandIn(f"{self._name}.{name}")

    @classmethod
    def register_subclass(cls, *names: Any, **options: Any) -> Callable[[Any], Any]:
        return lambda registered: registered


@dataclasses.dataclass(kw_only=True)
class RobotConfig:
    """LeRobot's base of robot configurations, as far as constructing one needs it."""

    id: Any = None
    calibration_dir: Any = None

    def __post_init__(self) -> None: ...

    @classmethod
    def register_subclass(cls, *names: Any, **options: Any) -> Callable[[Any], Any]:
        return lambda registered: registered


class Robot:
    """LeRobot's base of robots; unlike the original it makes no calibration folder."""

    config_class: Any = None
    name = ""

    def __init__(self, config: Any) -> None:
        self.config, self.id = config, getattr(config, "id", None)
        self.robot_type, self.calibration_dir = self.name, None
        self.calibration: dict[str, Any] = {}


class MotorNormMode(enum.Enum):
    """In which numbers LeRobot's motors are read."""

    RANGE_0_100 = "range_0_100"
    RANGE_M100_100 = "range_m100_100"
    DEGREES = "degrees"


class Motor:
    """One motor; only its mode matters here."""

    def __init__(self, id: Any = None, model: Any = None, norm_mode: Any = None, **rest: Any) -> None:
        self.id, self.model, self.norm_mode = id, model, norm_mode


class SOFollower(Robot):
    """LeRobot's own SO-100/SO-101 follower, which many packages extend: six motors, each a number `<motor>.pos`."""

    MOTORS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.bus = StandIn("lerobot.motors.feetech.FeetechMotorsBus", motors={name: Motor() for name in self.MOTORS})
        cameras = getattr(config, "cameras", {})
        self.cameras = cameras if isinstance(cameras, dict) else {}

    @property
    def _motors_ft(self) -> dict[str, Any]:
        return {f"{motor}.pos": float for motor in self.bus.motors}

    @property
    def _cameras_ft(self) -> dict[str, Any]:
        return {name: (camera.height, camera.width, 3) for name, camera in self.cameras.items()}

    @property
    def observation_features(self) -> dict[str, Any]:
        return {**self._motors_ft, **self._cameras_ft}

    @property
    def action_features(self) -> dict[str, Any]:
        return self._motors_ft


KNOWN = {
    "RobotConfig": RobotConfig,
    "Robot": Robot,
    **dict.fromkeys(("SOFollower", "SO100Follower", "SO101Follower"), SOFollower),
    "Motor": Motor,
    "MotorNormMode": MotorNormMode,
    "make_cameras_from_configs": lambda configs: dict(configs),
}
absent: list[str] = []


class StandInFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Last resort of the import system: a package that nobody found becomes a stand-in."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        top = name.partition(".")[0]
        if top == name and name not in absent:
            absent.append(name)
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if top in absent else None

    def create_module(self, spec: Any) -> types.ModuleType:
        module = types.ModuleType(spec.name)

        def attribute(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            if spec.name.startswith("lerobot") and name in KNOWN:
                return KNOWN[name]
            value = StandIn(f"{spec.name}.{name}")
            setattr(module, name, value)
            return value

        module.__getattr__ = attribute  # type: ignore[method-assign]
        module.__all__ = []  # type: ignore[attr-defined]
        return module

    def exec_module(self, module: types.ModuleType) -> None: ...


def guard(event: str, args: tuple[Any, ...]) -> None:
    """Refuse what an unconnected robot has no business doing: devices, connections, other programs."""
    device = event == "open" and str(args[0]).startswith(("/dev/tty", "/dev/video", "/dev/serial", "/dev/input"))
    if device or event in ("socket.connect", "subprocess.Popen", "os.system", "os.posix_spawn"):
        raise PermissionError(f"the package reaches for hardware while it is only asked for its features ({event})")


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """The features of the robot that `package[:Class]` (in the folder `arguments[1]`, if any) declares."""
    package, _, wanted = arguments[0].partition(":")
    if len(arguments) > 1:
        sys.path.insert(0, arguments[1])
    sys.meta_path.append(StandInFinder())
    sys.addaudithook(guard)
    root = importlib.import_module(package)
    for part in pkgutil.iter_modules(getattr(root, "__path__", [])):
        if part.name.startswith("config") or part.name == package.removeprefix("lerobot_robot_"):
            importlib.import_module(f"{package}.{part.name}")
    classes = _robots(package)
    if wanted:
        classes = {name: found for name, found in classes.items() if name == wanted}
    if len(classes) != 1:
        return {"robots": sorted(_robots(package)), "wanted": wanted}
    ((name, robot_class),) = classes.items()
    robot = robot_class(_default(robot_class.config_class))
    return {
        "robot": name,
        "robot_type": str(robot_class.__dict__.get("name") or name),
        "observation": _features(robot, "observation_features"),
        "action": _features(robot, "action_features"),
        "modes": _modes(robot),
        "absent": absent,
    }


def _robots(package: str) -> dict[str, Any]:
    """Classes of the package that have features and a configuration."""
    found = {}
    for name, module in list(sys.modules.items()):
        if name != package and not name.startswith(f"{package}."):
            continue
        for label, value in vars(module).items():
            own = inspect.isclass(value) and str(value.__module__).startswith(package)
            if own and inspect.isclass(getattr(value, "config_class", None)) and not inspect.isabstract(value):
                found[label] = value
    return found


def _default(config_class: Any, depth: int = 0) -> Any:
    """An instance with every default kept, and empty values where there is none."""
    if not dataclasses.is_dataclass(config_class):
        return config_class()
    try:
        hints = typing.get_type_hints(config_class)
    except Exception:
        # Annotations may name types of a driver that is not installed; the fields' own annotations then have to do,
        # and one that cannot be read that way gets no value.
        hints = {}
    values = {}
    for field in dataclasses.fields(config_class):
        if field.init and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            values[field.name] = _empty(hints.get(field.name, field.type), depth)
    made: Any = config_class
    return made(**values)


def _empty(hint: Any, depth: int) -> Any:
    origin = typing.get_origin(hint) or hint
    if inspect.isclass(origin) and dataclasses.is_dataclass(origin) and depth < 4:
        return _default(origin, depth + 1)
    return origin() if origin in (str, int, float, bool, dict, list, tuple, set) else None


def _features(robot: Any, name: str) -> list[list[Any]]:
    """Name and shape of each feature, in order: [] for a number."""
    features = getattr(robot, name, None)
    if callable(features) and not isinstance(features, StandIn):
        features = features()
    if isinstance(features, StandIn) or not isinstance(features, dict):
        raise NotKnown(features._name if isinstance(features, StandIn) else f"{name} of {type(robot).__name__}")
    out = []
    for key, value in features.items():
        if isinstance(value, StandIn):
            raise NotKnown(value._name)
        if isinstance(value, dict) and "shape" in value:
            value = tuple(value["shape"])
        if isinstance(value, (tuple, list)):
            shape = [int(size) for size in value]
        elif value in NUMBERS or (inspect.isclass(value) and "float" in value.__name__):
            shape = []
        else:
            raise ValueError(f"{name}['{key}'] is neither a number nor a shape")
        out.append([str(key), shape])
    return out


def _modes(robot: Any) -> dict[str, str]:
    """Motor to the numbers it is read in, from any bus that the robot holds."""
    found: dict[str, str] = {}
    for bus in vars(robot).values():
        motors = bus.__dict__.get("motors") if hasattr(bus, "__dict__") else None
        if isinstance(motors, dict):
            for motor, entry in motors.items():
                mode = getattr(entry, "norm_mode", None)
                if isinstance(mode, enum.Enum):
                    found[str(motor)] = mode.name
    return found


if __name__ == "__main__":
    try:
        answer = main(sys.argv[1:])
    except NotKnown as error:
        answer = {"not_known": str(error), "absent": absent}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}", "absent": absent}
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
