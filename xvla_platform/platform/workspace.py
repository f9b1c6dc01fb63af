"""A workspace: the folder with `xvla.yaml` in which plugins, embodiments, registry and runs lie side by side.

In: a folder, the environment, or the current directory. Out: a `Workspace` with its paths, its configuration
and its writers' locks.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import Field

from xvla_platform.errors import XvlaError
from xvla_platform.platform.files import atomic_folder, os_errors, real_path, write_text
from xvla_platform.specs.base import SCHEMA_VERSION, StrictModel, load_model

CONFIG_NAME = "xvla.yaml"
LOCK_SECONDS = 600.0
CONFIG_TEXT = """\
# A folder with this file is a workspace: `plugins/`, `embodiments/` and `registry/` live beside it.
schema_version: 1
base: xvla-tiny   # the base model `xvla adapt` uses when --base is not given
"""


class WorkspaceConfig(StrictModel):
    """`xvla.yaml`."""

    schema_version: Literal[1] = SCHEMA_VERSION
    base: str = Field(default="xvla-tiny", min_length=1)


@dataclass(frozen=True)
class Workspace:
    """One workspace; `root` is absolute and exists."""

    root: Path

    @classmethod
    def find(cls, explicit: str | Path | None = None) -> "Workspace":
        """`explicit`, else XVLA_WORKSPACE, else the nearest ancestor with `xvla.yaml`, else the current
        folder.
        """
        named = explicit or os.environ.get("XVLA_WORKSPACE")
        if named:
            root = real_path(Path(named).expanduser())
            if not root.is_dir():
                raise XvlaError("workspace not found", file=named, hint=f"`xvla init {named}` makes one")
            return cls(root)
        here = Path.cwd().resolve()
        for folder in (here, *here.parents):
            if (folder / CONFIG_NAME).is_file():
                return cls(folder)
        return cls(here)

    @property
    def plugins(self) -> Path:
        return self.root / "plugins"

    @property
    def embodiments(self) -> Path:
        return self.root / "embodiments"

    @property
    def registry(self) -> Path:
        return self.root / "registry"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @cached_property
    def config(self) -> WorkspaceConfig:
        """`xvla.yaml`, or the defaults in a folder without one."""
        path = self.root / CONFIG_NAME
        return load_model(WorkspaceConfig, path) if path.exists() else WorkspaceConfig()

    def shown(self, path: Path) -> str:
        """`path` as a user of this workspace writes it: relative to the root where it lies inside."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)

    @contextlib.contextmanager
    def lock(self, topic: str) -> Iterator[None]:
        """Hold the writers' lock of `topic` (`embodiments`, `registry-my_arm`); readers need none."""
        path = self.runs / ".locks" / f"{topic}.lock"
        with os_errors(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path, timeout=LOCK_SECONDS)
            try:
                lock.acquire()
            except Timeout:
                raise XvlaError(
                    f"another xvla command has been writing {topic} for over {LOCK_SECONDS:.0f} s",
                    file=self.root,
                    hint="wait for it or end it, then repeat",
                ) from None
        try:
            yield
        finally:
            lock.release()


def init(folder: Path) -> Workspace:
    """Make `folder` a workspace with the worked example in it; what exists is kept as it is."""
    root = real_path(folder.expanduser())
    workspace = Workspace(root)
    with os_errors(root):
        for path in (root, workspace.plugins, workspace.embodiments, workspace.registry):
            path.mkdir(parents=True, exist_ok=True)
    example = examples_folder()
    target = workspace.plugins / example.name
    if not target.exists():
        with atomic_folder(target) as building:
            shutil.copytree(example, building, dirs_exist_ok=True)
    # Last, so that a workspace with this file is a complete one.
    if not (root / CONFIG_NAME).exists():
        write_text(root / CONFIG_NAME, CONFIG_TEXT)
    return workspace


def examples_folder() -> Path:
    """The worked example's plugin folder: inside the wheel, or the checkout's own."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "examples" / "my_arm", package.parent / "plugins" / "my_arm"):
        if (folder / "plugin.yaml").is_file():
            return folder
    raise XvlaError("this installation carries no worked example", hint="reinstall xvla-platform")
