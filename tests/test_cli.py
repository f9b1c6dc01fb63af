"""The command line as a user meets it: bad input is one line and exit 2, good input ends with the next command."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY, ROBOT, one_line_error, tree, write_base, write_plugin
from data_helpers import write_dataset

from xvla_platform.cli.main import COMMANDS, main

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three short episodes of the tests' robot."""
    return write_dataset(tmp_path_factory.mktemp("data") / "demonstrations")


@pytest.fixture
def place(workspace: Any, demonstrations: Path) -> Path:
    """A workspace with the robot's plugin, its data and a base."""
    (workspace.plugins / "my_arm").mkdir(parents=True)
    (workspace.plugins / "my_arm" / "demonstrations").symlink_to(demonstrations)
    write_plugin(workspace.plugins / "my_arm", ROBOT)
    write_base(workspace.root / "base")
    return Path(workspace.root)


def set_at(value: Any, path: tuple[Any, ...], new: Any) -> None:
    """Change, or with None remove, what lies at `path`."""
    for part in path[:-1]:
        value = value[part]
    if new is None:
        del value[path[-1]]
    else:
        value[path[-1]] = new


def test_paths_that_no_disk_can_follow_are_one_line(place: Path, here: Run) -> None:
    """A name too long, links in a circle, a file where a folder should be: whoever meets them first, in one line."""
    (place / "circle").symlink_to("circle")
    for words in (
        ("check", "x" * 300),
        ("add-embodiment", "circle"),
        ("check", "xvla.yaml/plugin"),
        ("show", "y" * 300),
        ("eval", f"{'z' * 300}/v1"),
        ("pull", f"dir:{place}/{'s' * 300}"),
        ("push", "w" * 300, "--to", "dir:."),
    ):
        assert one_line_error(here(*words, cwd=place)), words
    (place / "registry").rmdir() if (place / "registry").is_dir() else None
    (place / "registry").write_text("no folder")
    assert "registry: cannot be read: not a directory" in one_line_error(here("list", cwd=place))


def test_what_was_meant_is_said(place: Path, here: Run) -> None:
    """No command is the help, a misspelt one is told its neighbours, an unknown robot those that there are."""
    bare = here(cwd=place)
    assert bare.returncode == 2
    assert "error" not in bare.stderr
    assert "  add-embodiment  " in bare.stderr
    assert "did you mean adapt?" in one_line_error(here("adpt", cwd=place))
    assert "there are init, new-plugin, check" in one_line_error(here("xyzzy", cwd=place))
    assert "found nope; allowed: my_arm" in one_line_error(here("check", "nope", cwd=place))
    assert "found nope; allowed: my_arm" in one_line_error(here("add-embodiment", "nope", cwd=place))


BAD_FIELDS: list[tuple[str, tuple[Any, ...], Any, str]] = [
    ("missing field", ("control_hz",), None, "plugin.yaml: control_hz: required field is missing"),
    ("unknown field", ("controll_hz",), 10, "controll_hz: unknown field; allowed: action, cameras, control_hz"),
    ("unknown nested", ("proprio", "fields", 0, "units"), "m", "proprio.fields[0].units: unknown field; allowed: arm"),
    ("wrong unit", ("proprio", "fields", 0, "unit"), "deg", "unit 'deg' is not one of a position (m, cm, mm)"),
    ("unknown unit", ("proprio", "fields", 0, "unit"), "furlong", "unknown value; found furlong; allowed: 'm', 'cm'"),
    ("no unit", ("proprio", "fields", 0, "unit"), None, "a position needs `unit`"),
    ("two main views", ("cameras", 1, "role"), "main", "exactly one camera has role main, found 2 (front, wrist)"),
    ("no main view", ("cameras", 0, "role"), "auxiliary", "exactly one camera has role main, found none"),
    ("no camera", ("cameras",), [], "cameras"),
    ("wrong name", ("name",), "My Arm", "name"),
    ("path in name", ("name",), "../x", "name"),
    ("rate", ("control_hz",), -1, "control_hz"),
    ("infinite rate", ("control_hz",), float("inf"), "control_hz"),
    ("newer schema", ("schema_version",), 2, "newer version"),
    ("text for number", ("horizon_s",), "long", "horizon_s"),
    ("list for mapping", ("proprio",), [1], "proprio"),
    ("unknown camera key", ("cameras", 0, "key"), "observation.images.top", "observation.images.top"),
    ("unknown column", ("proprio", "key"), "observation.states", "observation.states"),
    ("wrong resolution", ("cameras", 0, "resolution"), [64, 64], "resolution"),
    ("fields that do not add up", ("proprio", "fields", 2), None, "observation.state"),
    ("rate of the data", ("control_hz",), 50, "control_hz"),
    ("unknown format", ("dataset", "format"), "csv", "allowed: lerobot, hdf5, rlds, xvla_meta"),
    ("missing data", ("dataset", "path"), "nowhere", "dataset folder not found"),
    ("other action space", ("action", "space"), "joint", "has another action space"),
]


@pytest.mark.parametrize(("path", "new", "message"), [c[1:] for c in BAD_FIELDS], ids=[c[0] for c in BAD_FIELDS])
def test_a_wrong_declaration_is_one_line_and_writes_nothing(
    here: Run, place: Path, robot: dict[str, Any], path: tuple[Any, ...], new: Any, message: str
) -> None:
    set_at(robot, path, new)
    write_plugin(place / "plugins" / "my_arm", robot)
    before = tree(place)
    line = one_line_error(here("add-embodiment", "plugins/my_arm", "--base", "base", cwd=place))
    assert message in line
    assert tree(place) == before


LETTERS = "abcdefghijklmnopqrstu"
BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]\n" for a, b in pairwise(LETTERS))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nname: b\n", "twice"),
        ("cameras: {a: 1, a: 2}\n", "twice"),
        ("name: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
        ("name: [\n", "not valid YAML"),
        ("\tname: x\n", "not valid YAML"),
        ("", "expected a mapping"),
        ("just words\n", "expected a mapping"),
        ("name: \x00\n", "not valid YAML"),
        (BOMB, "expand without end"),
        ("name: &a [*a]\n", "not valid YAML"),
        ("a: &a {x: 1}\nb: {<<: [*a, *a]}\n", "merge keys"),
        ("[" * 1500, "not valid YAML"),
        ("{? {a: 1} : 2}\n", "a key must be a word"),
        ("x: 2026-99-99\n", "not valid YAML"),
        ("#" * (5 * 2**20), "larger than"),
    ],
)
def test_yaml_that_is_none_or_a_bomb_is_one_line(here: Run, place: Path, text: str, message: str) -> None:
    (place / "plugins" / "my_arm" / "plugin.yaml").write_text(text)
    before = tree(place)
    started = time.process_time()
    assert message in one_line_error(here("add-embodiment", "plugins/my_arm", "--base", "base", cwd=place))
    assert time.process_time() - started < 5
    assert tree(place) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("add-embodiment", "plugins/my_arm", "--base", "nope"), "unknown base model; found nope; allowed"),
        (("add-embodiment", "plugins/my_arm", "--base", "base", "--domain-id", "1"), "taken by robot1"),
        (("add-embodiment", "plugins/my_arm", "--base", "base", "--domain-id", "90"), "free: 3-7"),
        (("add-embodiment", "plugins/my_arm", "--base", "base", "--domain-id", "x"), "not a valid integer"),
        (("add-embodiment", "plugins/gone"), "plugin folder not found"),
        (("add-embodiment",), "Missing argument"),
        (("add-embodiment", "a", "b"), "unexpected extra argument"),
        (("show", "nobody"), "unknown embodiment; found nobody; allowed: none exist"),
        (("show", "../../etc"), "no adaptation of that name"),
        (("push",), "the registry is empty"),
        (("push", "my_arm"), "no adaptation of that name"),
        (("list", "--workspace", "/nowhere"), "workspace not found"),
        (("record", "plugins/my_arm", "--still-scenes", "9", "--slips", "0.3"), "--slips: says how demonstrations are"),
        (
            ("check", "plugins/my_arm", "--revision", "v1"),
            "--revision: a revision belongs to a Hub id, not to a shipped",
        ),
        (("add-embodiment", "plugins/my_arm", "--base", "base", "--revision", "v1"), "Hub id, not to a folder"),
        (("add-embodiment", "plugins/my_arm", "--base", ""), "unknown base model"),
        (("adapt", "--embodiment", "my_arm", "--feature-budget", "nan"), "'--feature-budget': nan is no finite number"),
        (("bench", "--peak", "nan"), "'--peak': nan is no finite number"),
        (("push", "--to", ""), "--to: is empty"),
        (("no-such-command",), "no such command: no-such-command; there are init"),
        (("list", "--nonsense"), "No such option"),
    ],
)
def test_misuse_is_one_line(here: Run, place: Path, words: tuple[str, ...], message: str) -> None:
    before = tree(place)
    assert message in one_line_error(here(*words, cwd=place))
    assert tree(place) == before
    answer = here(*words, "--json", cwd=place)
    assert answer.returncode == 2
    assert answer.stderr == ""
    assert json.loads(answer.stdout)["error"]


def test_a_robot_is_registered_and_updated_in_place(here: Run, place: Path, robot: dict[str, Any]) -> None:
    first = here("add-embodiment", "plugins/my_arm", "--base", "base", cwd=place)
    assert first.returncode == 0, first.stderr
    assert first.stdout.rstrip().endswith("wrote embodiments/my_arm\nnext: xvla adapt --embodiment my_arm")
    folder = place / "embodiments" / "my_arm"
    assert sorted(os.listdir(folder)) == ["cameras.png", "check.json", "embodiment.yaml", "report.html", "stats.json"]
    record = yaml.safe_load((folder / "embodiment.yaml").read_text())
    assert record["slot"] == {"domain_id": 3, "num_domains": 8}
    assert record["plugin"] == "plugins/my_arm"
    before = tree(folder)
    assert here("add-embodiment", "plugins/my_arm", "--base", "base", cwd=place).returncode == 0
    assert tree(folder) == before

    robot["description"] = "Another description."
    write_plugin(place / "plugins" / "my_arm", robot)
    assert here("add-embodiment", "plugins/my_arm", "--base", "base", cwd=place).returncode == 0
    assert "Another description." in here("show", "my_arm", cwd=place).stdout
    robot["cameras"][0]["key"] = "gone"
    write_plugin(place / "plugins" / "my_arm", robot)
    changed = tree(folder)
    one_line_error(here("add-embodiment", "plugins/my_arm", "--base", "base", cwd=place))
    assert tree(folder) == changed


def test_an_edited_plugin_is_noticed(here: Run, place: Path) -> None:
    from xvla_platform.errors import XvlaError
    from xvla_platform.platform.records import load_embodiment
    from xvla_platform.platform.workspace import Workspace

    here("add-embodiment", "plugins/my_arm", "--base", "base", cwd=place)
    workspace = Workspace(place)
    assert load_embodiment(workspace, "my_arm").spec.name == "my_arm"
    with (place / "plugins" / "my_arm" / "plugin.yaml").open("a") as file:
        file.write("# edited\n")
    with pytest.raises(XvlaError, match=r"Run `xvla add-embodiment plugins/my_arm` again"):
        load_embodiment(workspace, "my_arm")


def test_a_name_belongs_to_the_plugin_that_took_it(here: Run, place: Path, robot: dict[str, Any]) -> None:
    here("add-embodiment", "plugins/my_arm", "--base", "base", cwd=place)
    second = write_plugin(place / "plugins" / "second", robot)
    (second / "demonstrations").symlink_to(place / "plugins" / "my_arm" / "demonstrations")
    words = ("add-embodiment", "plugins/second", "--base", "base")
    assert "registered from another plugin; found plugins/my_arm" in one_line_error(here(*words, cwd=place))
    assert here(*words, "--force", cwd=place).returncode == 0
    robot["name"] = "second_arm"
    write_plugin(second, robot)
    assert here(*words, cwd=place).returncode == 0
    table = here("list", cwd=place).stdout
    assert "my_arm" in table
    assert "second_arm" in table
    line = one_line_error(here(*words, "--domain-id", "3", cwd=place))
    assert "domain id 3 is taken by robot my_arm" in line


def test_more_cameras_than_the_base_has_views(here: Run, place: Path) -> None:
    write_base(place / "base", num_image_views=1)
    line = one_line_error(here("add-embodiment", "plugins/my_arm", "--base", "base", cwd=place))
    assert "found 2 cameras; allowed: at most 1" in line


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_has_its_help_and_the_common_options(here: Run, tmp_path: Path, command: str) -> None:
    result = here(command, "--help", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "--json" in result.stdout
    assert "--workspace" in result.stdout


def test_list_and_show_tell_the_same_in_json(here: Run, adapted: Any) -> None:
    listed = json.loads(here("list", "--json", cwd=adapted.root).stdout)
    assert listed["adaptations"][0]["adaptation"] == "my_arm/v1"
    assert "position 0.01 m" in here("list", cwd=adapted.root).stdout
    shown = here("show", "my_arm", cwd=adapted.root).stdout
    for text in ("my_arm/v1: prompt", "position [m]", "hold still", "domain id 3 of 8", "next: xvla eval my_arm/v1"):
        assert text in shown
    assert json.loads(here("show", "my_arm/v1", "--json", cwd=adapted.root).stdout)["manifest"]["version"] == 1


def limit_file_size() -> None:
    """What a full disk looks like to a process, without a disk: no file may grow beyond 2 kB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))


def test_a_full_disk_keeps_the_old_robot(xvla: Run, place: Path) -> None:
    words = ("add-embodiment", "plugins/my_arm", "--base", "base")
    assert xvla(*words, cwd=place).returncode == 0
    before = tree(place)
    line = one_line_error(xvla(*words, cwd=place, preexec_fn=limit_file_size))
    assert "disk full while writing" in line
    assert "nothing was changed" in line
    assert tree(place) == before


def test_a_full_share_keeps_the_registry(xvla: Run, adapted: Any, tmp_path: Path) -> None:
    share = tmp_path / "share"
    share.mkdir()
    (adapted.registry / "my_arm" / "v1" / "README.md").stat()
    before = tree(adapted.root)
    line = one_line_error(xvla("push", "--to", f"dir:{share}", cwd=adapted.root, preexec_fn=lambda: limit_to(512)))
    assert "disk full" in line
    assert tree(adapted.root) == before
    assert tree(share) == {}


def limit_to(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not write")
def test_a_workspace_of_somebody_else_is_one_line(place: Path) -> None:
    """Run in a child without root's capabilities, for which permissions count."""
    code = (
        "import os, sys; from pathlib import Path; import xvla_platform.platform.workspace as w;"
        "from xvla_platform.platform import files; from xvla_platform.errors import XvlaError;"
        f"place = Path({str(place)!r}); os.chmod(place, 0o555); os.setgid(65534); os.setuid(65534)\n"
        "try:\n    files.write_text(place / 'x' / 'y', 'z')\nexcept XvlaError as error:\n    print(error)\n"
    )
    for folder in (place, *place.parents[:3]):
        folder.chmod(0o755)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert "cannot be written: permission denied" in result.stdout, result.stderr


def test_ctrl_c_is_one_line_and_leaves_nothing(place: Path) -> None:
    """Interrupted for real, in the middle of the checks."""
    (place / "plugins" / "my_arm" / "plugin.py").write_text(
        "import sys, time\nprint('loaded', file=sys.stderr, flush=True)\ntime.sleep(60)\n"
    )
    before = tree(place)
    process = subprocess.Popen(
        [sys.executable, "-m", "xvla_platform.cli.main", "add-embodiment", "plugins/my_arm", "--base", "base"],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "loaded\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.strip() == "error: interrupted; nothing half-written was left; run the same command again"
    assert {k: v for k, v in tree(place).items() if "__pycache__" not in k} == before


def test_a_bug_keeps_its_traceback(here: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_workspace: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("xvla_platform.platform.records.registered", broken)
    monkeypatch.chdir(place)
    with pytest.raises(ZeroDivisionError):
        main(["list"])
