"""Room on the disk for a feature store: whether there is any, and which stores make way for another."""

import fcntl
import shutil
from pathlib import Path

from filelock import FileLock

from xvla_platform.adapt.feature_store import META, use_of


def make_room(root: Path, needed: int, budget: int) -> list[Path]:
    """Remove stores that were used longest ago until `needed` more bytes fit into `budget`; returns what went.

    Stores that someone fills or holds are left alone. Nothing fits if `needed` alone exceeds the budget: the caller
    decides that before.
    """
    stores = [(path.stat().st_mtime, path.parent) for path in root.glob(f"*/{META}")]
    sizes = {folder: sum(f.stat().st_size for f in folder.glob("*.bin")) for _, folder in stores}
    total, removed = sum(sizes.values()), []
    for _, folder in sorted(stores):
        if total + needed <= budget:
            break
        if _remove_unused(folder):
            total -= sizes[folder]
            removed.append(folder)
    return removed


def _remove_unused(folder: Path) -> bool:
    """Remove a store unless someone fills or holds it."""
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        return False
    try:
        with use_of(folder) as use:
            try:
                fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
            shutil.rmtree(folder, ignore_errors=True)
            return True
    finally:
        lock.release()


def fits(folder: Path, size: int) -> bool:
    """Whether the file system below `folder` has room for `size` bytes and a tenth more."""
    place = folder
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free > size * 1.1
