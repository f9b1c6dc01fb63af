"""The whole extension surface on one screen: what a plugin may contribute, observe and refuse.

A `register_*` hook returns light descriptors; what is behind them is imported on first use. An implementation
may accept any subset of the arguments. `check_pending` is called on every manager, so a misspelt hook is an
error.

pluggy never runs the bodies below, it reads their signatures; `raise NotImplementedError` marks those that
answer with something, so that their return types hold.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xvla_platform.hooks import hookspec

if TYPE_CHECKING:
    from xvla_platform.specs.embodiment import EmbodimentSpec
    from xvla_platform.specs.plan import Stage
    from xvla_platform.specs.records import EmbodimentRecord, Manifest


@dataclass(frozen=True, kw_only=True)
class Factory:
    """A named contribution whose code is imported on first use.

    Attributes:
        name: What users write (`format: lerobot`, `--plan careful`); unique among the factories of its hook.
        target: The object itself, or `"package.module:attribute"`; without an attribute, the module.
        summary: One line for listings.
    """

    name: str
    target: str | Callable[..., Any]
    summary: str = ""

    def load(self) -> Any:
        """The object behind the name."""
        return load_target(self.target)


def load_target(target: str | Callable[..., Any]) -> Any:
    """The object itself, or what `"package.module:attribute"` or `"package.module"` names."""
    if not isinstance(target, str):
        return target
    module, _, attribute = target.partition(":")
    found = importlib.import_module(module)
    return getattr(found, attribute) if attribute else found


@dataclass(frozen=True, kw_only=True)
class PushRequest:
    """What a storage is asked to share; `location` is what the user wrote after `--to`, without the scheme."""

    name: str
    version: int
    folder: Path
    location: str
    public: bool


@dataclass(frozen=True, kw_only=True)
class PushReceipt:
    """Where it lies now, as `xvla pull` takes it, and at which revision."""

    location: str
    revision: str | None
    already_there: bool


@dataclass(frozen=True, kw_only=True)
class Storage:
    """Where adaptations are shared.

    Attributes:
        name: The scheme before the colon in `--to dir:/some/share`; without one, `hub` is meant.
        push: `(PushRequest) -> PushReceipt`, or its `"module:attribute"`.
        pull: `(location, revision | None, empty destination folder) -> revision | None`, or its name.
    """

    name: str
    push: str | Callable[..., Any]
    pull: str | Callable[..., Any]
    summary: str = ""


@dataclass(frozen=True, kw_only=True)
class EnvironmentRequest:
    """The robot that an environment is asked for.

    Attributes:
        spec: Its declaration, as the policy was made for it.
        plugin_folder: Where its plugin lies; it need not exist for a robot that came by `xvla pull`.
        options: What the user gave with `--env-option KEY=VALUE`.
    """

    spec: EmbodimentSpec
    plugin_folder: Path
    options: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Where a policy can act in closed loop: a simulator, or the robot itself.

    Attributes:
        name: What users write after `--env`.
        make: `(EnvironmentRequest) -> gymnasium.Env`, or its `"module:attribute"`; `closed_loop/contract.py` says
            what the environment takes and gives.
        fits: Whether a robot can be had there, by its declaration and plugin folder; without it, every robot can.
            It decides which environment is meant where the user names none, so it must be quick.
    """

    name: str
    make: str | Callable[..., Any]
    summary: str = ""
    fits: Callable[[EmbodimentSpec, Path], bool] | None = None


@hookspec
def register_embodiments() -> Iterable[Path]:
    """Plugin folders of installed robots, each with a `plugin.yaml`."""
    raise NotImplementedError


@hookspec
def register_dataset_readers() -> Iterable[Factory]:
    """Readers; `name` is the `dataset.format` of a plugin."""
    raise NotImplementedError


@hookspec
def register_checks() -> Iterable[Any]:
    """Checks of `xvla check`: `CheckGroup`s, or a Factory that names one or a module with `RULES` and `CHECKS`."""
    raise NotImplementedError


@hookspec
def register_storages() -> Iterable[Storage]:
    """Places to push to and pull from."""
    raise NotImplementedError


@hookspec
def register_plans() -> Iterable[Factory]:
    """Adaptation plans by name, for `xvla adapt --plan NAME`."""
    raise NotImplementedError


@hookspec
def register_environments() -> Iterable[Environment]:
    """Places to act in, for `xvla eval --closed-loop`."""
    raise NotImplementedError


@hookspec
def register_commands(cli: Any) -> None:
    """Add click commands to the `xvla` group."""


@hookspec
def adaptation_started(record: EmbodimentRecord, run_folder: Path) -> None:
    """The base is loaded and the first stage is about to begin."""


@hookspec
def stage_started(stage: Stage, run_folder: Path) -> None:
    """The parameter groups of a stage are set and its optimizer exists."""


@hookspec
def step_finished(stage: Stage, step: int, metrics: dict[str, float]) -> None:
    """One optimizer step is done; `metrics` holds at least `loss`."""


@hookspec
def adaptation_finished(manifest: Manifest, folder: Path) -> None:
    """The adaptation lies in the registry."""


@hookspec
def check_before_push(manifest: Manifest, folder: Path) -> Iterable[str]:
    """Reasons why this adaptation must not leave the machine; an empty answer lets it pass."""
    raise NotImplementedError
