"""Push and pull: from the registry to a storage and back, byte for byte.

In: a workspace and a target. Out: what was shared or placed. A push leaves the machine only when the folder
verifies and no plugin objects; a pull is placed only when every hash and the contract hold.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePath

from xvla_platform.errors import RefusedError, XvlaError
from xvla_platform.platform.artifact import MANIFEST_NAME, load_record, verify
from xvla_platform.platform.files import atomic_folder, os_errors, write_text
from xvla_platform.platform.hookspecs import PushReceipt, PushRequest, Storage, load_target
from xvla_platform.platform.plugins import build_manager, contributions
from xvla_platform.platform.records import RECORD_NAME, plugin_folder, record_text, registered
from xvla_platform.platform.registry import (
    Adaptation,
    find,
    list_adaptations,
    newest_unpushed,
    place,
    record_push,
)
from xvla_platform.platform.workspace import Workspace
from xvla_platform.specs.records import EmbodimentRecord, Manifest


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """The outcome of a pull.

    Attributes:
        already_here: The same content was in the registry before; nothing was written.
        record_written: Whether `embodiments/<name>/` was written too.
        slot_holder: The robot of this workspace that has the same prompt slot, which is why the record was
            not.
    """

    adaptation: Adaptation
    revision: str | None
    already_here: bool
    record_written: bool
    slot_holder: str | None = None


def push(
    workspace: Workspace, name: str | None = None, to: str | None = None, public: bool = False
) -> tuple[Adaptation, PushReceipt]:
    """Share an adaptation (by default the newest unpushed one) and record where it went."""
    for option, value in (("NAME", name), ("--to", to)):
        if value == "":
            raise XvlaError("is empty", field=option, hint="leave it out to have the default")
    adaptation = find(workspace, name) if name else newest_unpushed(workspace)
    manifest = verify(adaptation.folder)
    record = load_record(adaptation.folder)
    _ = adaptation.pushes  # A record that is broken is refused now, not when everything is shared.
    storage, location = _storage(to or "")
    _ask_gates(workspace, record, manifest, adaptation)
    request = PushRequest(
        name=adaptation.name,
        version=adaptation.version,
        folder=adaptation.folder,
        location=location,
        public=public,
    )
    receipt: PushReceipt = load_target(storage.push)(request)
    record_push(adaptation.folder, to=receipt.location, revision=receipt.revision)
    return adaptation, receipt


def pull(workspace: Workspace, source: str) -> Pulled:
    """Bring `user/name[@revision]` or `dir:/some/share/name[@vN]` into the registry, verified before it is
    placed.
    """
    where, revision = _revision_of(source)
    storage, location = _storage(where)
    with os_errors(workspace.runs):
        workspace.runs.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".pull-", dir=workspace.runs))
    try:
        with os_errors(temporary):
            got: str | None = load_target(storage.pull)(location, revision, temporary)
        manifest = verify(temporary)
        record = load_record(temporary)
        _check_plugin(record, source)
        return _place(workspace, temporary, manifest, record, where, got)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _place(
    workspace: Workspace,
    folder: Path,
    manifest: Manifest,
    record: EmbodimentRecord,
    where: str,
    revision: str | None,
) -> Pulled:
    name = manifest.embodiment
    same = (folder / MANIFEST_NAME).read_bytes()
    for known in list_adaptations(workspace, name):
        if (known.folder / MANIFEST_NAME).read_bytes() == same:
            verify(known.folder)
            written, holder = _write_record(workspace, folder, record)
            return Pulled(
                adaptation=known,
                revision=revision,
                already_here=True,
                record_written=written,
                slot_holder=holder,
            )

    def build(destination: Path, _version: int) -> None:
        shutil.copytree(folder, destination, dirs_exist_ok=True)

    adaptation = place(workspace, name, build, version=manifest.version)
    record_push(adaptation.folder, to=where, revision=revision, how="pulled")
    written, holder = _write_record(workspace, folder, record)
    return Pulled(
        adaptation=adaptation,
        revision=revision,
        already_here=False,
        record_written=written,
        slot_holder=holder,
    )


def _write_record(workspace: Workspace, folder: Path, record: EmbodimentRecord) -> tuple[bool, str | None]:
    """Register the robot from the artifact's own contract, unless it is known or its slot is another's here."""
    final = workspace.embodiments / record.spec.name
    with workspace.lock("embodiments"):
        if final.exists():
            return False, None
        for other in registered(workspace):
            same_base = other.base.fingerprint == record.base.fingerprint
            if same_base and other.slot.domain_id == record.slot.domain_id:
                return False, other.spec.name
        with atomic_folder(final) as building:
            write_text(building / RECORD_NAME, record_text(record))
            if (folder / "stats.json").is_file():
                shutil.copyfile(folder / "stats.json", building / "stats.json")
    return True, None


def _check_plugin(record: EmbodimentRecord, source: str) -> None:
    """A record from elsewhere must not choose which `plugin.py` of this machine runs."""
    path = PurePath(record.plugin)
    if path.is_absolute() or ".." in path.parts or record.plugin.startswith("~"):
        raise XvlaError(
            "names a plugin folder outside the workspace",
            file=source,
            field="plugin",
            found=record.plugin,
            hint="its maker registers the robot from a folder inside the workspace and adapts again",
        )


def _storage(target: str) -> tuple[Storage, str]:
    """`dir:/some/share` to its storage and location; without a scheme, the Hub."""
    storages: dict[str, Storage] = contributions(build_manager(), "register_storages")
    scheme, colon, location = target.partition(":")
    if not colon:
        return storages["hub"], target
    if scheme not in storages:
        allowed = ", ".join(["user/name", *(f"{name}:..." for name in sorted(storages))])
        raise XvlaError("unknown kind of storage", found=target, allowed=allowed)
    return storages[scheme], location


def _revision_of(source: str) -> tuple[str, str | None]:
    """What is asked for, and at which revision; of a path only the last name can carry one, if it is no folder."""
    scheme, colon, path = source.partition(":")
    if not colon:
        where, _, revision = source.partition("@")
        return where, revision or None
    where, _, revision = source.rpartition("@")
    if not where or "/" in revision or (scheme == "dir" and Path(path).expanduser().is_dir()):
        return source, None
    return where, revision or None


def _ask_gates(workspace: Workspace, record: EmbodimentRecord, manifest: Manifest, adaptation: Adaptation) -> None:
    folder = plugin_folder(workspace, record)
    manager = build_manager(folder if folder.is_dir() else None)
    answers = manager.hook.check_before_push(manifest=manifest, folder=adaptation.folder)
    reasons = [str(reason) for answer in answers for reason in answer or ()]
    if reasons:
        raise RefusedError(f"{adaptation.label} must not be pushed: {'; '.join(reasons)}")
