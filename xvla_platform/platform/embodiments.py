"""Registering a robot: its declaration checked against its data and the base, statistics, a prompt slot.

In: a workspace, a loaded plugin and a base. Out: `embodiments/<name>/` with `embodiment.yaml` (the record),
`stats.json`, `cameras.png`, what the checks found and, where declared, the robot's kinematics, all or nothing. This
module orchestrates the data layer and the checks, so it stands above them.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from xvla_platform.errors import RefusedError, XvlaError
from xvla_platform.platform.base_config import config_space, proprio_width
from xvla_platform.platform.bases import ResolvedBase
from xvla_platform.platform.files import atomic_folder, write_bytes, write_json, write_text
from xvla_platform.platform.plugins import LoadedPlugin, build_manager, contributions
from xvla_platform.platform.records import (
    RECORD_NAME,
    find_embodiment,
    load_embodiment,
    plugin_folder,
    record_text,
    registered,
)
from xvla_platform.platform.slots import allocate_slot
from xvla_platform.platform.workspace import Workspace
from xvla_platform.specs.action_space import ActionSpace
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.specs.records import BaseRef, DataRef, EmbodimentRecord

if TYPE_CHECKING:
    from xvla_platform.check.findings import CheckReport
    from xvla_platform.data.reader import DatasetReader

__all__ = ["add_embodiment", "base_space", "find_embodiment", "load_embodiment", "open_data", "registered"]

STATS_NAME = "stats.json"
SHEET_NAME = "cameras.png"
CHECKED_EPISODES = 24  # registration is quick; `xvla check` looks at more


def add_embodiment(
    workspace: Workspace,
    plugin: LoadedPlugin,
    *,
    base: ResolvedBase,
    domain_id: int | None = None,
    force: bool = False,
    accept: Iterable[str] | None = None,
    progress: Callable[[str, int], Callable[[int], None]] | None = None,
    checked: "Callable[[CheckReport], None] | None" = None,
) -> EmbodimentRecord:
    """Check and register the robot; one that is registered from the same plugin is updated in place.

    Args:
        domain_id: The slot wished for; else the robot's present one, else the lowest free one.
        force: Take over a name that another plugin registered.
        accept: Codes of error-level findings to register the robot in spite of; without it, those that were accepted
            when it was registered before.
        progress: Makes a counter of a named job of so many units.
        checked: Told what the checks found, before a refusal.
    """
    from xvla_platform.check.contact_sheet import contact_sheet
    from xvla_platform.check.context import make_context, write_check
    from xvla_platform.check.runner import check_groups, run_checks
    from xvla_platform.data.binding import Binding
    from xvla_platform.data.conventions import Conventions
    from xvla_platform.data.joint_poses import carried
    from xvla_platform.data.samples import training_episodes
    from xvla_platform.data.statistics import compute_statistics
    from xvla_platform.data.verify import check_dataset

    spec = plugin.spec
    source = workspace.shown(plugin.folder)
    _check_owner(workspace, spec.name, source, force)
    space = base_space(base)
    _check_base(plugin, base, space)
    reader = open_data(spec, plugin.folder)
    check_dataset(reader, spec, plugin=plugin.folder / "plugin.yaml")
    conventions = Conventions(spec, space, plugin.folder)
    train = training_episodes(len(reader.episodes), spec.dataset.held_out)
    statistics = compute_statistics(reader, spec, train, conventions=conventions)
    Binding(spec, space, base.rotation_layout, statistics, folder=plugin.folder)
    context = make_context(
        spec,
        reader,
        plugin_folder=plugin.folder,
        base=base,
        space=space,
        episodes=CHECKED_EPISODES,
        verified=True,
        quick=True,
    )
    groups = check_groups(build_manager(plugin.folder))
    report = run_checks(context, progress("checks", len(groups)) if progress else None, groups=groups)
    if checked is not None:
        checked(report)
    accepted = _accepted(report, _earlier(workspace, spec.name) if accept is None else tuple(accept), source)
    sheet = contact_sheet(reader, spec)
    kept, files = carried(spec, plugin.folder)
    with workspace.lock("embodiments"):
        record = EmbodimentRecord.model_validate(
            {
                "spec": kept,
                "plugin": source,
                "plugin_sha256": plugin.yaml_sha256,
                "base": base_ref(workspace, base),
                "slot": allocate_slot(base, workspace, spec.name, domain_id),
                "action_space": space.name,
                "rotation_layout": base.rotation_layout,
                "data": _data_ref(reader, spec),
                "accepted": accepted,
            }
        )
        with atomic_folder(workspace.embodiments / spec.name, replace=True) as building:
            write_text(building / RECORD_NAME, record_text(record))
            write_json(building / STATS_NAME, statistics)
            write_bytes(building / SHEET_NAME, sheet)
            write_check(report, context, building)
            for name, text in files.items():
                write_text(building / name, text)
    return record


def base_space(base: ResolvedBase) -> ActionSpace:
    """The action space of the base, as its configuration states it; a model that reads less proprio is refused."""
    file = base.folder / "config.json"
    space = config_space(base.config, file)
    width = proprio_width(base.config, space, file)
    if width < space.dim:
        raise XvlaError(
            "the base's proprio vector is narrower than its action vector, so a robot's state has no place in it",
            file=file,
            field="max_state_dim",
            found=width,
            allowed=f"at least {space.dim}",
        )
    return space


def open_data(spec: EmbodimentSpec, folder: Path) -> "DatasetReader":
    """The demonstrations that the plugin in `folder` declares, through the reader registered for their format.

    Every consumer of a robot's data comes through here, so each sees the declared instruction.
    """
    from xvla_platform.data.instructions import with_instruction
    from xvla_platform.data.reader import locate_dataset, open_dataset

    readers = contributions(build_manager(folder if folder.is_dir() else None), "register_dataset_readers")
    reader = open_dataset(readers.values(), spec.dataset.format, locate_dataset(spec.dataset, folder))
    return with_instruction(reader, spec.dataset.instruction)


def _earlier(workspace: Workspace, name: str) -> tuple[str, ...]:
    """The codes accepted when the robot was registered before."""
    if name not in {record.spec.name for record in registered(workspace)}:
        return ()
    return tuple(finding.code for finding in find_embodiment(workspace, name).accepted)


def _accepted(report: "CheckReport", codes: tuple[str, ...], source: str) -> list[dict[str, str | None]]:
    """The error-level findings, each of which must be accepted by its code; else the registration is refused."""
    errors = report.of("error")
    unknown = sorted(set(codes) - set(report.rules))
    if unknown:
        raise XvlaError("unknown code of a finding", field="--accept", found=unknown[0], allowed=sorted(report.rules))
    refused = [finding for finding in errors if finding.code not in codes]
    if refused:
        first = refused[0]
        options = " ".join(f"--accept {code}" for code in dict.fromkeys(finding.code for finding in refused))
        more = (
            f" ({len(refused) - 1} more: {', '.join(finding.code for finding in refused[1:])})" if refused[1:] else ""
        )
        raise RefusedError(
            f"{first.code} {report.rules[first.code].slug}: {first.measured}{more}",
            file=source,
            field=first.field,
            hint=f"`xvla check {source}` shows every finding and how to mend it; {options} registers the "
            "robot all the same",
        )
    return [{"code": finding.code, "field": finding.field, "measured": finding.measured} for finding in errors]


def _check_owner(workspace: Workspace, name: str, source: str, force: bool) -> None:
    """A name belongs to the plugin that registered it, as long as that plugin is there."""
    if force or name not in {record.spec.name for record in registered(workspace)}:
        return
    known = find_embodiment(workspace, name)
    if known.plugin != source and plugin_folder(workspace, known).is_dir():
        raise XvlaError(
            f"embodiment '{name}' is registered from another plugin",
            file=source,
            field="name",
            found=known.plugin,
            hint="choose another name, or take this one over with --force",
        )


def _check_base(plugin: LoadedPlugin, base: ResolvedBase, space: ActionSpace) -> None:
    spec, file = plugin.spec, plugin.folder / "plugin.yaml"
    if spec.action.space is not None and spec.action.space != space.name:
        raise XvlaError(
            f"the base {base.id} has another action space",
            file=file,
            field="action.space",
            found=spec.action.space,
            allowed=space.name,
        )
    if len(spec.cameras) > base.num_views:
        raise XvlaError(
            f"the base {base.id} was trained with {base.num_views} views",
            file=file,
            field="cameras",
            found=f"{len(spec.cameras)} cameras",
            allowed=f"at most {base.num_views}",
        )


def base_ref(workspace: Workspace, base: ResolvedBase) -> BaseRef:
    """The base as records name it: a folder of this workspace by `./path`, which means the same on every machine."""
    path = Path(base.id)
    if not path.is_absolute() or not path.is_relative_to(workspace.root):
        return base.ref
    return base.ref.model_copy(update={"id": f"./{path.relative_to(workspace.root).as_posix()}"})


def _data_ref(reader: "DatasetReader", spec: EmbodimentSpec) -> DataRef:
    return DataRef(
        format=spec.dataset.format,
        path=spec.dataset.path,
        repo=spec.dataset.repo,
        revision=spec.dataset.revision,
        fingerprint=reader.fingerprint(),
        episodes=len(reader.episodes),
        frames=sum(episode.length for episode in reader.episodes),
        fps=reader.info.fps or spec.control_hz,
    )
