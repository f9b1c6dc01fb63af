"""The registry: versioned adaptations under `registry/<name>/v<N>/`, each folder complete, hashed and
immutable.

In: a workspace and a name, or a function that fills a folder. Out: an `Adaptation`. The folder's number is
where it lies in this workspace; `manifest.version` is the number it was made with, which an adaptation keeps
when it is pulled elsewhere. Pushes are recorded beside the folder, since writing inside would change what was
hashed.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from xvla_platform.errors import XvlaError
from xvla_platform.platform.artifact import MANIFEST_NAME, load_manifest
from xvla_platform.platform.files import NOTHING_CHANGED, atomic_folder, entries, is_file, read_json, write_json
from xvla_platform.platform.workspace import Workspace
from xvla_platform.specs.records import Manifest

_ENTRY = {"to", "revision", "how", "at"}
_VERSION = re.compile(r"^v([1-9]\d{0,8})$")


@dataclass(frozen=True)
class Adaptation:
    """One version folder of the registry."""

    name: str
    version: int
    folder: Path

    @property
    def label(self) -> str:
        return f"{self.name}/v{self.version}"

    @cached_property
    def manifest(self) -> Manifest:
        return load_manifest(self.folder)

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    @property
    def pushes(self) -> list[dict[str, Any]]:
        """Where it was pushed to or pulled from, oldest first: `to`, `revision`, `at`, `how`."""
        return _pushes(_pushes_path(self.folder))


def list_adaptations(workspace: Workspace, name: str | None = None) -> list[Adaptation]:
    """Every complete version, by name and number."""
    found = []
    robots = [workspace.registry / name] if name else entries(workspace.registry)
    for folder in (version for robot in robots if robot.is_dir() for version in entries(robot)):
        match = _VERSION.match(folder.name)
        if match and is_file(folder / MANIFEST_NAME):
            found.append(Adaptation(folder.parent.name, int(match[1]), folder))
    return sorted(found, key=lambda adaptation: (adaptation.name, adaptation.version))


def find(workspace: Workspace, label: str) -> Adaptation:
    """`my_arm` (its newest version) or `my_arm/v2`."""
    name, _, version = label.strip("/").partition("/")
    versions = [a for a in list_adaptations(workspace) if a.name == name]
    if not versions:
        existing = sorted({adaptation.name for adaptation in list_adaptations(workspace)})
        raise XvlaError("no adaptation of that name", file=workspace.registry, found=name, allowed=existing)
    if not version:
        return versions[-1]
    for adaptation in versions:
        if f"v{adaptation.version}" == version:
            return adaptation
    labels = [adaptation.label for adaptation in versions]
    raise XvlaError("no such version", file=workspace.registry / name, found=version, allowed=labels)


def next_version(workspace: Workspace, name: str) -> int:
    """One above the highest number in use, complete or not."""
    return max(_numbers(workspace, name), default=0) + 1


def place(
    workspace: Workspace,
    name: str,
    build: Callable[[Path, int], None],
    *,
    version: int | None = None,
) -> Adaptation:
    """Let `build(folder, number)` fill a hidden folder, then make it `registry/<name>/v<number>` in one
    rename.

    Args:
        build: Must leave a sealed artifact; whatever it raises leaves the registry as it was.
        version: The number wished for; the next one where that is taken or None is given.
    """
    with workspace.lock(f"registry-{name}"):
        free = version is not None and version not in _numbers(workspace, name)
        number = version if version is not None and free else next_version(workspace, name)
        final = workspace.registry / name / f"v{number}"
        with atomic_folder(final) as folder:
            build(folder, number)
            load_manifest(folder)
    return Adaptation(name, number, final)


def record_push(folder: Path, *, to: str, revision: str | None, how: str = "pushed") -> None:
    """Note beside the version folder where it went (`how="pulled"`: where it came from).

    A failure says what has happened all the same: by now the adaptation is shared, or placed.
    """
    path = _pushes_path(folder)
    entry = {"to": to, "revision": revision, "how": how, "at": now()}
    try:
        write_json(path, {"schema_version": 1, "pushes": [*_pushes(path), entry]})
    except (XvlaError, OSError) as error:
        reason = error.message if isinstance(error, XvlaError) else os.strerror(error.errno or 0).lower()
        fact = f"shared as {to}" if how == "pushed" else f"pulled from {to} and placed"
        at = f" at {revision}" if revision else ""
        label = f"{folder.parent.name}/{folder.name}"
        raise XvlaError(
            f"{label} is {fact}{at}, which could not be noted here: {reason.removesuffix(NOTHING_CHANGED)}",
            file=path,
            hint="mend this and repeat the command, which finds what is there already",
        ) from None


def newest_unpushed(workspace: Workspace) -> Adaptation:
    """The adaptation made last that was never pushed."""
    everything = list_adaptations(workspace)
    waiting = [adaptation for adaptation in everything if not adaptation.pushes]
    if waiting:
        return max(waiting, key=lambda adaptation: (adaptation.manifest.created, adaptation.version))
    if everything:
        raise XvlaError(
            "every adaptation has been pushed already",
            file=workspace.registry,
            hint=f"name one to push it again: `xvla push {everything[-1].label}`",
        )
    raise XvlaError(
        "nothing to push: the registry is empty",
        file=workspace.registry,
        hint="`xvla adapt --embodiment my_arm` makes an adaptation",
    )


def now() -> str:
    """The time as it stands in manifests and push records: UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _numbers(workspace: Workspace, name: str) -> list[int]:
    matches = (_VERSION.match(path.name) for path in entries(workspace.registry / name))
    return [int(match[1]) for match in matches if match]


def _pushes(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    value = read_json(path)
    found = value.get("pushes") if isinstance(value, dict) else None
    if not isinstance(found, list) or not all(isinstance(each, dict) and set(each) >= _ENTRY for each in found):
        allowed = f"`pushes`: a list of entries with {', '.join(sorted(_ENTRY))}"
        raise XvlaError(
            "is no record of pushes", file=path, allowed=allowed, hint="remove the file to go on without it"
        )
    return found


def _pushes_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.pushes.json")
