"""The registered robots of a workspace: reading `embodiments/<name>/embodiment.yaml`.

In: a workspace and a name. Out: an `EmbodimentRecord`, or an error that lists the robots which exist.
"""

import hashlib
from pathlib import Path

import yaml

from xvla_platform.errors import XvlaError
from xvla_platform.platform.files import entries, is_file, sha256_file
from xvla_platform.platform.workspace import Workspace
from xvla_platform.specs.base import load_model
from xvla_platform.specs.records import EmbodimentRecord

RECORD_NAME = "embodiment.yaml"
SOURCES = (".py", ".yaml", ".yml", ".json", ".xml", ".urdf")


def registered(workspace: Workspace) -> list[EmbodimentRecord]:
    """Every robot of the workspace, by name; one that cannot be read is an error: its slot is taken all the same."""
    paths = (folder / RECORD_NAME for folder in entries(workspace.embodiments))
    return [load_model(EmbodimentRecord, path) for path in paths if is_file(path)]


def find_embodiment(workspace: Workspace, name: str) -> EmbodimentRecord:
    """The record of robot `name` as it was written, whatever became of its plugin since."""
    path = workspace.embodiments / name / RECORD_NAME
    if "/" in name or name.startswith(".") or not path.is_file():
        existing = [record.spec.name for record in registered(workspace)]
        raise XvlaError(
            "unknown embodiment",
            file=workspace.embodiments,
            found=name,
            allowed=existing,
            hint=f"`xvla add-embodiment plugins/{name}` registers it" if not existing else None,
        )
    return load_model(EmbodimentRecord, path)


def load_embodiment(workspace: Workspace, name: str) -> EmbodimentRecord:
    """The record of robot `name`, refused if its plugin was edited since it was checked."""
    record = find_embodiment(workspace, name)
    folder = plugin_folder(workspace, record)
    path = folder / "plugin.yaml"
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != record.plugin_sha256:
        raise XvlaError(
            f"was edited after '{name}' was registered",
            file=path,
            hint=f"run `xvla add-embodiment {record.plugin}` again",
        )
    return record


def plugin_folder(workspace: Workspace, record: EmbodimentRecord) -> Path:
    """The folder of the robot's plugin; it need not exist for a robot that came by `xvla pull`."""
    path = Path(record.plugin)
    return path if path.is_absolute() else workspace.root / path


def plugin_sources(folder: Path, dataset: str | None) -> dict[str, str]:
    """sha256 of what a plugin does, by path inside its folder: its code, settings and mechanics, not its `dataset`.

    Empty where the folder does not exist, as for a robot that came by `xvla pull`.
    """
    inside = {path for path in folder.glob("*") if path.suffix in SOURCES and path.is_file()}
    for part in folder.glob("[!.]*"):
        if part.is_dir() and part.name not in Path(dataset or "").parts[:1]:
            inside |= set(part.rglob("*.py"))
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in sorted(inside)}


def record_text(record: EmbodimentRecord) -> str:
    """The record as YAML, in the order in which it is read, without the fields that say nothing."""
    values = record.model_dump(mode="json", exclude_none=True)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
