"""A shared folder as storage: `dir:/some/share` holds `<name>/v<N>/`, each placed in one rename.

In: an adaptation's folder, or a location. Out: where it lies, or its files in a folder of the caller's.
"""

import re
import shutil
from pathlib import Path

from xvla_platform.errors import XvlaError
from xvla_platform.platform.artifact import MANIFEST_NAME
from xvla_platform.platform.files import atomic_folder, entries
from xvla_platform.platform.hookspecs import PushReceipt, PushRequest


def push(request: PushRequest) -> PushReceipt:
    """Copy the adaptation to `<share>/<name>/v<N>`, or the next free number where another one has that."""
    if not request.location:
        raise XvlaError("names no folder", found="dir:", allowed="dir:/some/share")
    if request.public:
        raise XvlaError(
            "is for the Hub: who sees a folder is a matter of its rights", field="--public", hint="leave it out"
        )
    share = Path(request.location).expanduser().absolute()
    if not share.is_dir():
        raise XvlaError("shared folder not found", file=share)
    numbers = _versions(share / request.name)
    for number, folder in numbers.items():
        if _same(folder, request.folder):
            return PushReceipt(location=f"dir:{folder}", revision=f"v{number}", already_there=True)
    number = request.version if request.version not in numbers else max(numbers) + 1
    final = share / request.name / f"v{number}"
    with atomic_folder(final) as building:
        shutil.copytree(request.folder, building, dirs_exist_ok=True)
    return PushReceipt(location=f"dir:{final}", revision=f"v{number}", already_there=False)


def pull(location: str, revision: str | None, destination: Path) -> str | None:
    """Copy `<location>` (a version folder, or a folder of versions, newest or `@vN`) into `destination`."""
    folder = Path(location).expanduser().absolute()
    if not (folder / MANIFEST_NAME).is_file():
        versions = _versions(folder)
        if not versions:
            raise XvlaError("no adaptation in this folder", file=folder, allowed="<share>/<name>[/v<N>]")
        labels = {f"v{number}": path for number, path in versions.items()}
        wanted = revision or f"v{max(versions)}"
        if wanted not in labels:
            raise XvlaError("no such version", file=folder, found=wanted, allowed=labels)
        folder = labels[wanted]
    elif revision is not None:
        raise XvlaError("is one version already", file=folder, found=f"@{revision}")
    # Links stay links, so that verification sees and refuses them.
    shutil.copytree(folder, destination, dirs_exist_ok=True, symlinks=True)
    return folder.name


def _versions(folder: Path) -> dict[int, Path]:
    paths = entries(folder) if folder.is_dir() else ()
    return dict(sorted((int(p.name[1:]), p) for p in paths if re.fullmatch(r"v[1-9]\d{0,8}", p.name)))


def _same(one: Path, other: Path) -> bool:
    """A manifest holds the hash of everything else, so equal manifests mean equal folders."""
    first, second = one / MANIFEST_NAME, other / MANIFEST_NAME
    return first.is_file() and first.read_bytes() == second.read_bytes()
