"""Versions are placed whole, never change, and are found by name."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, fill_adaptation, tree

from xvla_platform.errors import XvlaError
from xvla_platform.platform.artifact import check_names, verify
from xvla_platform.platform.records import registered
from xvla_platform.platform.registry import find, list_adaptations, newest_unpushed, next_version, place, record_push
from xvla_platform.platform.workspace import Workspace


def add(workspace: Workspace, robot: dict[str, Any], value: float = 1.0) -> Any:
    return place(workspace, "my_arm", lambda folder, version: fill_adaptation(folder, version, robot, value=value))


def test_versions_count_up_and_are_found(adapted: Workspace, robot: dict[str, Any]) -> None:
    second = add(adapted, robot, 2.0)
    assert second.label == "my_arm/v2"
    assert second.manifest.version == 2
    assert [a.label for a in list_adaptations(adapted)] == ["my_arm/v1", "my_arm/v2"]
    assert find(adapted, "my_arm").version == 2
    assert find(adapted, "my_arm/v1").version == 1
    assert next_version(adapted, "my_arm") == 3
    for label, message in (("my_arm/v9", "my_arm/v1, my_arm/v2"), ("other", "allowed: my_arm")):
        with pytest.raises(XvlaError, match=message):
            find(adapted, label)


def test_what_may_not_be_read_is_not_absent(adapted: Workspace) -> None:
    """A record or a version of another user is an error: passed over, its slot or number would be given twice."""
    looks: tuple[tuple[Path, Callable[[], Any]], ...] = (
        (adapted.embodiments, lambda: registered(adapted)),
        (adapted.embodiments / "my_arm", lambda: registered(adapted)),
        (adapted.registry, lambda: list_adaptations(adapted)),
        (adapted.registry / "my_arm", lambda: next_version(adapted, "my_arm")),
        (adapted.registry / "my_arm" / "v1", lambda: list_adaptations(adapted, "my_arm")),
    )
    (adapted.embodiments / "my_arm").mkdir(parents=True)
    (adapted.embodiments / "my_arm" / "embodiment.yaml").write_text("taken")
    for closed, look in looks:
        mode = closed.stat().st_mode
        closed.chmod(0)
        try:
            with as_another(adapted.root), pytest.raises(XvlaError, match="cannot be read: permission denied"):
                look()
        finally:
            closed.chmod(mode)


@contextlib.contextmanager
def as_another(root: Path) -> Iterator[None]:
    """Root may read everything, so root acts as nobody; others are who they are."""
    if os.geteuid() != 0:
        yield
        return
    for folder in root.parents:
        if folder.owner() == "root" and folder.stat().st_mode & 0o055 != 0o055:
            folder.chmod(folder.stat().st_mode | 0o055)
    for path in (root, *root.rglob("*")):
        if path.is_dir() and path.stat().st_mode & 0o700:
            path.chmod(0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_build_that_fails_leaves_the_registry_as_it_was(adapted: Workspace) -> None:
    before = tree(adapted.root)

    def build(folder: Path, _version: int) -> None:
        (folder / "adapter_config.json").write_text("{}")
        raise RuntimeError("loss is NaN")

    with pytest.raises(RuntimeError, match="loss is NaN"):
        place(adapted, "my_arm", build)
    with pytest.raises(XvlaError, match=r"manifest\.json: file not found"):
        place(adapted, "my_arm", lambda folder, version: None)
    assert tree(adapted.root) == before


def test_pushes_are_recorded_beside_the_folder(adapted: Workspace, robot: dict[str, Any]) -> None:
    add(adapted, robot, 2.0)
    newest = newest_unpushed(adapted)
    assert newest.version == 2
    record_push(newest.folder, to="lab/x", revision="abc")
    verify(newest.folder)
    assert newest_unpushed(adapted).version == 1
    record_push(newest.folder, to="lab/y", revision="def")
    assert [push["to"] for push in newest.pushes] == ["lab/x", "lab/y"]
    record_push(find(adapted, "my_arm/v1").folder, to="lab/x", revision="abc")
    with pytest.raises(XvlaError, match="pushed already"):
        newest_unpushed(adapted)


@pytest.mark.parametrize("text", ["[]", '{"pushes": {}}', '{"pushes": ["hub"]}', '{"pushes": [{"to": "a/b"}]}'])
def test_a_record_of_pushes_in_another_form_is_one_error(adapted: Workspace, text: str) -> None:
    (adapted.registry / "my_arm" / "v1.pushes.json").write_text(text)
    with pytest.raises(XvlaError, match=r"v1\.pushes\.json: is no record of pushes"):
        newest_unpushed(adapted)


@pytest.mark.parametrize(("how", "fact"), [("pushed", "shared as dir:/s at v1"), ("pulled", "pulled from dir:/s and")])
def test_a_push_that_cannot_be_noted_is_not_called_undone(
    adapted: Workspace, monkeypatch: pytest.MonkeyPatch, how: str, fact: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    folder = find(adapted, "my_arm").folder
    with pytest.raises(XvlaError, match=f"my_arm/v1 is {fact}.*could not be noted here: disk full") as caught:
        record_push(folder, to="dir:/s", revision="v1", how=how)
    assert "nothing was changed" not in str(caught.value)


def test_an_empty_registry_says_how_to_fill_it(workspace: Workspace) -> None:
    with pytest.raises(XvlaError, match="xvla adapt"):
        newest_unpushed(workspace)
    with pytest.raises(XvlaError, match="none exist"):
        find(workspace, "my_arm")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("metrics.json", b"{}", "was altered"),
        ("more.json", b"{}", "does not list"),
        ("run.py", b"", "not plain data"),
        ("rows.pkl", b"", "not plain data"),
        ("rows.pt", b"", "not plain data"),
        (".hidden.json", b"{}", "hidden"),
        ("deep/run.sh", b"", "not plain data"),
        ("README.md", None, "lacks a file"),
    ],
)
def test_every_change_is_noticed(adapted: Workspace, name: str, data: bytes | None, message: str) -> None:
    folder = find(adapted, "my_arm").folder
    verify(folder)
    if data is None:
        (folder / name).unlink()
    else:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    with pytest.raises(XvlaError, match=message):
        verify(folder)


@pytest.mark.parametrize(
    "name", ["../x.json", "/etc/x.json", "a//b.json", "a/../../b.json", "a\\..\\b.json", "./x.json"]
)
def test_names_never_leave_the_folder(name: str) -> None:
    with pytest.raises(XvlaError, match="leaves its folder"):
        check_names([name], "somewhere")


KILLED = """
import sys, time
from pathlib import Path
sys.path[:0] = [{tests!r}]
from conftest import ROBOT, fill_adaptation
from xvla_platform.platform.registry import place
from xvla_platform.platform.workspace import Workspace

def build(folder, version):
    fill_adaptation(folder, version, ROBOT)
    print("built", flush=True)
    if {wait}:
        time.sleep(60)

print("ready", flush=True)
while True:
    place(Workspace(Path({root!r})), "my_arm", build)
"""


@pytest.mark.parametrize("moment", range(6))
def test_a_kill_leaves_nothing_or_the_whole_version(workspace: Workspace, moment: int) -> None:
    """Killed while building (moment 0), and at five moments of a loop that does nothing but place."""
    script = KILLED.format(tests=str(REPOSITORY / "tests"), root=str(workspace.root), wait=moment == 0)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    wanted = "built" if moment == 0 else "ready"
    while process.stdout.readline().strip() != wanted:
        assert process.poll() is None
    if moment:
        process.stdout.readline()
        time.sleep(0.011 * moment)
    process.send_signal(signal.SIGKILL)
    process.wait()
    placed = list_adaptations(workspace)
    assert len(placed) == len(list((workspace.registry / "my_arm").glob("v*")))
    assert moment or not placed
    for adaptation in placed:
        verify(adaptation.folder)
    # The next writer finds no lock held and clears what the killed one left.
    from conftest import ROBOT

    place(workspace, "my_arm", lambda folder, version: fill_adaptation(folder, version, ROBOT))
    assert not list((workspace.registry / "my_arm").glob(".*"))
