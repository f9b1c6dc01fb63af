"""Writes are all or nothing, whatever interrupts them."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from xvla_platform.errors import XvlaError
from xvla_platform.platform import files


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill(final: Path, text: str, stop: type[BaseException], replace: bool = False) -> None:
    """Write into an atomic folder, then be interrupted."""
    with files.atomic_folder(final, replace=replace) as folder:
        (folder / "a").write_text(text)
        raise stop


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a" / "b.json", {"z": 1, "a": 2})
    assert (tmp_path / "a" / "b.json").read_text() == '{\n  "a": 2,\n  "z": 1\n}\n'
    with pytest.raises(ValueError, match="Out of range"):
        files.write_json(tmp_path / "a" / "b.json", {"z": float("nan")})
    assert files.read_json(tmp_path / "a" / "b.json") == {"z": 1, "a": 2}
    assert entries(tmp_path / "a") == ["b.json"]


@pytest.mark.parametrize("text", ["{", '{"a": }', '{"a": NaN}', "[-Infinity]", "\xff", "[" * 100_000])
def test_unreadable_json_is_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(XvlaError, match=r"x\.json"):
        files.read_json(tmp_path / "x.json")


@pytest.mark.parametrize("text", ["[]", "3", "null", '"a"'])
def test_json_that_is_no_mapping_is_an_error_where_one_is_needed(tmp_path: Path, text: str) -> None:
    (tmp_path / "stats.json").write_text(text)
    with pytest.raises(XvlaError, match=r"stats\.json: expected a mapping of fields"):
        files.read_mapping(tmp_path / "stats.json")


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
def test_a_folder_that_fails_leaves_nothing(tmp_path: Path, stop: type[BaseException]) -> None:
    with pytest.raises(stop):
        fill(tmp_path / "v1", "x", stop)
    assert entries(tmp_path) == []


def test_a_replacement_that_fails_keeps_the_old_one(tmp_path: Path) -> None:
    with files.atomic_folder(tmp_path / "robot") as folder:
        (folder / "a").write_text("old")
    with pytest.raises(RuntimeError):
        fill(tmp_path / "robot", "new", RuntimeError, replace=True)
    assert (tmp_path / "robot" / "a").read_text() == "old"
    with files.atomic_folder(tmp_path / "robot", replace=True) as folder:
        (folder / "b").write_text("new")
    assert entries(tmp_path / "robot") == ["b"]
    with pytest.raises(XvlaError, match="never overwritten"), files.atomic_folder(tmp_path / "robot"):
        pass
    assert entries(tmp_path) == ["robot"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "no space"), "disk full"),
        (OSError(errno.EDQUOT, "quota"), "disk full"),
        (RuntimeError("Error: I/O error: No space left on device (os error 28)"), "disk full"),
        (OSError(errno.EROFS, "read-only"), "read-only"),
        (PermissionError(errno.EACCES, "denied"), "permission denied"),
    ],
)
def test_what_the_disk_refuses_is_said(tmp_path: Path, error: Exception, message: str) -> None:
    with pytest.raises(XvlaError, match=message), files.atomic_folder(tmp_path / "v1"):
        raise error
    assert entries(tmp_path) == []


def test_an_error_about_a_source_file_keeps_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), files.atomic_folder(tmp_path / "here" / "v1") as folder:
        (folder / "copy").write_bytes(Path("/nowhere/source").read_bytes())


def test_leftovers_of_dead_writers_go_and_of_live_ones_stay(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    pid, host = int(dead.stdout), files._host()
    (tmp_path / f".xvla-new-{host}-{pid}-abc123-v1").mkdir()
    (tmp_path / f".xvla-new-{host}-{pid}-abc123-x.json").write_text("half")
    (tmp_path / f".xvla-old-{host}-{pid}-abc123-robot").mkdir()
    live = f".xvla-new-{host}-{os.getppid()}-abc123-v2"
    elsewhere = f".xvla-new-00000000-{pid}-abc123-v3"
    (tmp_path / live).mkdir()
    (tmp_path / elsewhere).mkdir()
    files.write_text(tmp_path / "y", "y")
    assert entries(tmp_path) == sorted([live, elsewhere, "robot", "y"])
