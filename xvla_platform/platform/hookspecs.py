"""The whole extension surface on one screen: what a plugin may contribute, observe and refuse.

A `register_*` hook returns light descriptors; what is behind them is imported on first use. An implementation
may accept any subset of the arguments. `check_pending` is called on every manager, so a misspelt hook is an
error.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xvla_platform.hooks import hookspec

if TYPE_CHECKING:
    from xvla_platform.specs.plan import Stage
    from xvla_platform.specs.records import EmbodimentRecord, Manifest


@dataclass(frozen=True, kw_only=True)
class Factory:
    """A named contribution whose code is imported on first use.

    Attributes:
        name: What users write (`format: lerobot`, `--plan default`); unique among the factories of its hook.
        target: The object itself, or `"package.module:attribute"`.
        summary: One line for listings.
    """

    name: str
    target: str | Callable[..., Any]
    summary: str = ""

    def load(self) -> Any:
        """The object behind the name."""
        if not isinstance(self.target, str):
            return self.target
        module, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(module), attribute)


@dataclass(frozen=True, kw_only=True)
class Storage:
    """Where adaptations are shared. `scheme` is the part before the colon in `--to dir:/some/share`.

    Attributes:
        push: `"module:attribute"` of `(PushRequest) -> PushReceipt`.
        pull: `"module:attribute"` of `(location, revision | None, destination folder) -> revision`.
    """

    name: str
    push: str | Callable[..., Any]
    pull: str | Callable[..., Any]
    summary: str = ""


@hookspec
def register_embodiments() -> Iterable[Path]:
    """Plugin folders of installed robots, each with a `plugin.yaml`."""
    raise NotImplementedError


@hookspec
def register_dataset_readers() -> Iterable[Factory]:
    """Readers; `name` is the `dataset.format` of a plugin."""
    raise NotImplementedError


@hookspec
def register_storages() -> Iterable[Storage]:
    """Places to push to and pull from."""
    raise NotImplementedError


@hookspec
def register_plans() -> Iterable[Factory]:
    """Adaptation plans by name."""
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
