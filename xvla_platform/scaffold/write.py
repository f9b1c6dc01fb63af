"""Putting a draft on disk: `plugins/<name>/plugin.yaml`, a README, and a way to the data that stays where it is.

In: a workspace, a draft and its source. Out: the files, all or nothing. `dataset.path` ends up in records that are
shared, so it never names this machine: it is relative to the plugin folder where the data lies in the workspace, and
the name of a link in the plugin folder where it lies elsewhere.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xvla_platform.errors import XvlaError
from xvla_platform.platform.files import atomic_folder, os_errors, real_path, write_text
from xvla_platform.platform.workspace import Workspace
from xvla_platform.scaffold.draft import Draft
from xvla_platform.scaffold.render import plugin_text, readme_text

PLUGIN, README = "plugin.yaml", "README.md"
LINK = "demonstrations"


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written; `link` is the link to data outside the workspace, where one was made."""

    folder: Path
    files: tuple[Path, ...]
    link: Path | None = None


@dataclass(frozen=True, kw_only=True)
class DataPath:
    """How the plugin finds its data: the text of `dataset.path`, and the link that has to be made for it."""

    text: str
    link: Path | None = None


def plugin_folder(workspace: Workspace, name: str, *, force: bool) -> Path:
    """Where the plugin goes; an existing declaration is replaced only with `force`."""
    folder = workspace.plugins / name
    if (folder / PLUGIN).exists() and not force:
        raise XvlaError(
            "there is a plugin of that name already",
            file=workspace.shown(folder / PLUGIN),
            hint="choose another name, or replace its plugin.yaml with --force",
        )
    if folder.exists() and not folder.is_dir():
        raise XvlaError("is a file, and a plugin is a folder", file=workspace.shown(folder))
    return folder


def data_path(workspace: Workspace, folder: Path, place: Path) -> DataPath:
    """How `plugin.yaml` in `folder` names the data at `place` (an absolute path)."""
    home = real_path(folder)
    if place == home:
        raise XvlaError(
            "the dataset is the plugin's own folder",
            file=workspace.shown(folder),
            hint=f"move it into {workspace.shown(folder / LINK)} first, or choose another name for the plugin",
        )
    if place.is_relative_to(workspace.root.resolve()):
        return DataPath(text=Path(os.path.relpath(place, home)).as_posix())
    link = folder / (LINK + (place.suffix if place.is_file() else ""))
    if link.is_symlink() or link.exists():
        if real_path(link) == place:
            return DataPath(text=link.name)
        raise XvlaError(
            "the plugin's folder holds other data under the name that the link would take",
            file=workspace.shown(link),
            hint="move it away first",
        )
    return DataPath(text=link.name, link=link)


def write_plugin(
    workspace: Workspace,
    draft: Draft,
    *,
    source: str,
    place: Path | None,
    notes: Sequence[str] = (),
    force: bool = False,
) -> Written:
    """Write the draft as a plugin of the workspace; `place` is its local dataset, if it has one."""
    folder = plugin_folder(workspace, draft["name"], force=force)
    data = data_path(workspace, folder, place) if place is not None else None
    if data is not None:
        draft = {**draft, "dataset": {**draft["dataset"], "path": data.text}}
    texts = {
        README: readme_text(draft, source=source, notes=notes),
        PLUGIN: plugin_text(draft, source=source, notes=notes),
    }
    link = data.link if data is not None else None
    if not folder.exists():
        with atomic_folder(folder) as building:
            if link is not None:
                (building / link.name).symlink_to(place or "")
            for name, text in texts.items():
                write_text(building / name, text)
        return Written(folder=folder, files=tuple(folder / name for name in reversed(texts)), link=link)
    if (folder / README).exists() and not force:
        del texts[README]  # somebody's own words about data that lies there already
    with os_errors(folder):
        if link is not None:
            link.symlink_to(place or "")
        try:
            for name, text in texts.items():
                write_text(folder / name, text)
        except BaseException:
            if link is not None:
                link.unlink(missing_ok=True)
            raise
    return Written(folder=folder, files=tuple(folder / name for name in reversed(texts)), link=link)
