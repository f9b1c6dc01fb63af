"""Writing that is all or nothing: a file or a folder is either the old one or the complete new one.

In: a destination and its content. Out: the destination, replaced in one rename. What goes wrong on the way
(disk full, no permission, Ctrl-C, a kill) leaves the destination as it was; a hidden sibling that a killed
process left behind is removed by the next writer in that folder.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xvla_platform.errors import XvlaError

NOTHING_CHANGED = "; nothing was changed"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT)
# The native writers of safetensors and torch report the system's error as text only.
_DISK_FULL_TEXT = re.compile(r"os error (28|122|27)\b|No space left|Disk quota exceeded|File too large")
_TEMPORARY = re.compile(r"^\.xvla-(new|old)-([0-9a-f]{8})-(\d+)-[0-9a-f]{6}-(.+)$")


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, creating the folders above it."""
    with os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        temporary = sibling(path, "new")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by sorted, indented JSON; NaN and infinity are refused: JSON has no word for them."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: Path) -> Any:
    """Parse a JSON file; every way in which it can be unreadable is an `XvlaError`, NaN and infinity among them."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except FileNotFoundError:
        raise XvlaError("file not found", file=path) from None
    except (OSError, ValueError, RecursionError) as error:
        raise XvlaError(f"is not readable JSON: {error}", file=path) from None


def read_mapping(path: Path) -> dict[str, Any]:
    """A JSON file that holds names and values; anything else is an `XvlaError`."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise XvlaError("expected a mapping of fields", file=path, found=type(value).__name__)
    return value


def entries(folder: Path) -> list[Path]:
    """What lies in a folder and is not hidden, by name; nothing where there is no folder.

    `Path.glob` passes over what it may not read, as if it were not there.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise XvlaError(f"cannot be read: {os.strerror(error.errno or 0).lower()}", file=folder) from None


def is_file(path: Path) -> bool:
    """Whether a file is there; a place that may not be looked into is an error, not an absent file."""
    try:
        return path.is_file()
    except OSError as error:
        raise XvlaError(f"cannot be read: {os.strerror(error.errno or 0).lower()}", file=path) from None


@contextlib.contextmanager
def atomic_folder(final: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a hidden sibling to build in; it becomes `final` in one rename when the block ends well.

    Args:
        final: Where the folder shall be.
        replace: Whether a folder already there gives way; otherwise it is an error, before anything is built.
    """
    with os_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(final.parent)
        if final.exists() and not replace:
            raise XvlaError("exists already and is never overwritten", file=final)
        building = sibling(final, "new")
        building.mkdir()
        try:
            yield building
            _flush(building)
            _swap(building, final, replace)
        finally:
            shutil.rmtree(building, ignore_errors=True)


@contextlib.contextmanager
def os_errors(target: Path) -> Iterator[None]:
    """Turn what the file system refuses while `target` is written into an `XvlaError`."""
    try:
        yield
    except XvlaError:
        raise
    except OSError as error:
        # `shutil.copytree` gathers the errors of many files in one without a number.
        if error.errno in DISK_FULL or _DISK_FULL_TEXT.search(str(error)):
            raise _disk_full(target) from None
        if error.errno in NOT_WRITABLE and _concerns(error, target):
            reason = os.strerror(error.errno or 0).lower()
            raise XvlaError(f"cannot be written: {reason}{NOTHING_CHANGED}", file=target) from None
        raise
    except Exception as error:
        if _DISK_FULL_TEXT.search(str(error)):
            raise _disk_full(target) from None
        raise


def real_path(path: Path, field: str | None = None) -> Path:
    """`path`, absolute and without links, whether or not something is there.

    Links that lead in a circle, and names that no disk can hold, are an error; which one the library raises for them
    differs from one Python to the next.
    """
    try:
        real = path.resolve()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            real.stat()
    except (OSError, RuntimeError, ValueError) as error:
        reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error).partition(" from ")[0]
        raise XvlaError(f"is no path that can be followed: {reason.lower()}", file=path, field=field) from None
    return real


def sha256_file(path: Path) -> str:
    """The hex sha256 of a file, read in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_leftovers(folder: Path) -> None:
    """Clear what killed writers of this machine left hidden in `folder`; live writers are left alone."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        match = _TEMPORARY.match(entry.name)
        if match is None or match[2] != _host() or _alive(int(match[3])):
            continue
        final = folder / match[4]
        if match[1] == "old" and not final.exists():
            entry.rename(final)  # killed between the two renames of a replacement: the old one stays
        elif entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON")


def _concerns(error: OSError, target: Path) -> bool:
    """Whether the error is about the destination; one about a source file keeps its own words."""
    if not isinstance(error.filename, (str, bytes, os.PathLike)):
        return True
    path = Path(os.fsdecode(error.filename)).absolute()
    parent = target.absolute().parent
    return path.is_relative_to(parent) or parent.is_relative_to(path)


def _disk_full(target: Path) -> XvlaError:
    return XvlaError(f"disk full while writing {target}{NOTHING_CHANGED}", hint="free some space and repeat")


def sibling(path: Path, role: str) -> Path:
    return path.with_name(f".xvla-{role}-{_host()}-{os.getpid()}-{secrets.token_hex(3)}-{path.name}")


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _flush(folder: Path) -> None:
    """Push the folder's content to the disk, so that the rename never outlives the data it names."""
    for path in [folder, *folder.rglob("*")]:
        if path.is_symlink():
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _swap(building: Path, final: Path, replace: bool) -> None:
    old = sibling(final, "old")
    if replace and final.exists():
        final.rename(old)
    try:
        building.rename(final)
    except OSError as error:
        if old.exists():
            old.rename(final)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise XvlaError("exists already and is never overwritten", file=final) from None
        raise
    shutil.rmtree(old, ignore_errors=True)
