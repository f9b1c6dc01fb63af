"""`xvla new-plugin`: what it writes, what it asks, what it refuses, and that nothing is half-written."""

import io
import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY, one_line_error, tree
from data_helpers import write_dataset

from xvla_platform.cli.main import main
from xvla_platform.platform.plugins import load_plugin
from xvla_platform.specs.embodiment import EmbodimentSpec

Xvla = Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset, recorded once; tests take copies."""
    return write_dataset(tmp_path_factory.mktemp("recording") / "reach")


@pytest.fixture
def place(tmp_path: Path, recording: Path) -> Path:
    """A workspace with a small dataset inside it, and the same dataset outside."""
    root = tmp_path / "workspace"
    root.mkdir()
    (root / "xvla.yaml").write_text("schema_version: 1\n")
    for folder in (root / "data", tmp_path / "elsewhere"):
        shutil.copytree(recording, folder / "reach")
    return root


class Typed(io.StringIO):
    """What was typed at a terminal, up to the end of it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process: the same `main`, without a start of Python for each line."""

    def command(*words: str, typed: str | None = None) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(place)
        monkeypatch.setattr(sys, "stdin", io.StringIO() if typed is None else Typed(typed))
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main(words)
        seen = capsys.readouterr()
        return subprocess.CompletedProcess(list(words), int(left.value.code or 0), seen.out, seen.err)

    return command


def declared(root: Path, name: str = "robot") -> dict[str, Any]:
    raw: dict[str, Any] = yaml.safe_load((root / "plugins" / name / "plugin.yaml").read_text())
    return raw


def test_data_in_the_workspace_is_named_by_a_relative_path(xvla: Xvla, place: Path) -> None:
    result = xvla("new-plugin", "robot", "--from", "data/reach", cwd=place)
    assert result.returncode == 0, result.stderr
    assert "next: xvla check plugins/robot" in result.stdout
    assert declared(place)["dataset"] == {"format": "lerobot", "path": "../../data/reach", "held_out": 0.2}
    spec = load_plugin(place / "plugins" / "robot").spec
    assert isinstance(spec, EmbodimentSpec)
    assert sorted(path.name for path in (place / "plugins" / "robot").iterdir()) == ["README.md", "plugin.yaml"]


def test_data_elsewhere_is_linked_and_no_file_names_this_machine(run: Run, place: Path) -> None:
    outside = place.parent / "elsewhere" / "reach"
    before = tree(outside)
    result = run("new-plugin", "robot", "--from", str(outside))
    assert result.returncode == 0, result.stderr
    folder = place / "plugins" / "robot"
    assert (folder / "demonstrations").is_symlink()
    assert (folder / "demonstrations").resolve() == outside.resolve()
    assert "linked    plugins/robot/demonstrations" in result.stdout
    assert declared(place)["dataset"]["path"] == "demonstrations"
    for name in ("plugin.yaml", "README.md"):
        assert str(place.parent) not in (folder / name).read_text()
    assert tree(outside) == before


def test_data_that_lies_in_the_plugins_folder_already(run: Run, place: Path, recording: Path) -> None:
    folder = place / "plugins" / "robot"
    shutil.copytree(recording, folder / "demonstrations")
    (folder / "README.md").write_text("mine\n")
    result = run("new-plugin", "robot", "--from", str(folder / "demonstrations"))
    assert result.returncode == 0, result.stderr
    assert declared(place)["dataset"]["path"] == "demonstrations"
    assert (folder / "README.md").read_text() == "mine\n"


def test_json_has_every_guess_with_its_evidence(run: Run, place: Path) -> None:
    result = run("new-plugin", "robot", "--from", "data/reach", "--json")
    answer = json.loads(result.stdout)
    by_field = {guess["field"]: guess for guess in answer["guesses"]}
    unit = by_field["proprio.fields[0].unit"]
    assert (unit["value"], unit["state"]) == ("m", "sure")
    assert unit["confidence"] >= 0.9
    assert "the positions span" in unit["evidence"]
    assert by_field["proprio.fields[1].format"]["state"] == "check"
    assert answer["plugin"] == "plugins/robot"
    assert answer["blanks"] == []
    assert answer["wrote"] == ["plugins/robot/plugin.yaml", "plugins/robot/README.md"]


def test_the_main_view_can_be_chosen(run: Run, place: Path) -> None:
    result = run("new-plugin", "robot", "--from", "data/reach", "--main-camera", "wrist")
    assert result.returncode == 0, result.stderr
    main = [camera["name"] for camera in declared(place)["cameras"] if camera["role"] == "main"]
    assert main == ["wrist"]
    line = one_line_error(run("new-plugin", "other", "--from", "data/reach", "--main-camera", "top"))
    assert "no such camera; found top; allowed: observation.images.front, observation.images.wrist" in line


def test_an_empty_template_is_refused_until_it_is_answered(run: Run, place: Path) -> None:
    assert run("new-plugin", "robot", "--empty").returncode == 0
    line = one_line_error(run("add-embodiment", "plugins/robot"))
    assert "plugins/robot/plugin.yaml: description: is still blank (???): which robot is this" in line
    assert "more blanks: control_hz, cameras[0].mount" in line


def test_an_existing_plugin_is_replaced_only_by_force(run: Run, place: Path) -> None:
    assert run("new-plugin", "robot", "--empty").returncode == 0
    before = tree(place / "plugins")
    line = one_line_error(run("new-plugin", "robot", "--from", "data/reach"))
    assert "there is a plugin of that name already" in line
    assert "--force" in line
    assert tree(place / "plugins") == before
    assert run("new-plugin", "robot", "--from", "data/reach", "--force").returncode == 0
    assert declared(place)["control_hz"] == 10


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["Robot", "--empty"], "lower case"),
        (["../robot", "--empty"], "lower case"),
        (["robot"], "exactly one of --from"),
        (["robot", "--empty", "--from", "data/reach"], "exactly one of --from"),
        (["robot", "--empty", "--revision", "main"], "--revision goes with --from"),
        (["robot", "--from", "data/reach", "--revision", "main"], "--revision belongs to a dataset on the Hub"),
        (["robot", "--from", "data/nothing.hdf5"], "no such dataset"),
        (["robot", "--from", "plugins"], "no such dataset"),
        (["robot", "--from", "data"], "not a dataset of any known format"),
        (["robot", "--from", "xvla.yaml"], "not a dataset of any known format"),
        (["robot", "--from", "lerobot_robot_missing"], "no such package is installed"),
    ],
)
def test_misuse_is_one_line_and_writes_nothing(run: Run, place: Path, words: list[str], message: str) -> None:
    before = tree(place)
    assert message in one_line_error(run("new-plugin", *words))
    assert tree(place) == before
    assert not (place / "plugins" / "robot").exists()


def test_a_damaged_dataset_is_one_line_and_writes_nothing(run: Run, place: Path) -> None:
    next((place / "data" / "reach" / "data").rglob("*.parquet")).write_bytes(b"damaged")
    before = tree(place)
    one_line_error(run("new-plugin", "robot", "--from", "data/reach"))
    assert tree(place) == before
    assert not (place / "plugins").exists()


def test_a_link_never_takes_the_place_of_other_data(run: Run, place: Path, recording: Path) -> None:
    folder = place / "plugins" / "robot"
    shutil.copytree(recording, folder / "demonstrations")
    before = tree(folder)
    outside = place.parent / "elsewhere" / "reach"
    assert "holds other data" in one_line_error(run("new-plugin", "robot", "--from", str(outside)))
    assert tree(folder) == before


def test_a_dataset_on_the_hub_is_pinned_to_the_commit_that_was_read(xvla: Xvla, place: Path, tmp_path: Path) -> None:
    """From the client's own cache, offline."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "hf" / "hub" / "datasets--lab--reach"
    write_dataset(repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    env = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    result = xvla("new-plugin", "robot", "--from", "lab/reach", cwd=place, env=env)
    assert result.returncode == 0, result.stderr
    dataset = declared(place)["dataset"]
    assert dataset == {"format": "lerobot", "repo": "lab/reach", "revision": commit, "held_out": 0.2}
    assert not (place / "plugins" / "robot" / "demonstrations").exists()


# On a terminal.


def typed(place: Path, *words: str, lines: str) -> tuple[int, str]:
    """Run the command with a terminal as its input, in which `lines` were typed."""
    master, slave = pty.openpty()
    os.write(master, lines.encode())
    try:
        done = subprocess.run(
            [sys.executable, "-m", "xvla_platform.cli.main", "new-plugin", *words],
            cwd=place,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        os.close(slave)
        os.close(master)
    return done.returncode, done.stdout


def test_enter_accepts_every_guess(place: Path) -> None:
    code, output = typed(place, "robot", "--from", "data/reach", lines="\n" * 30)
    assert code == 0, output
    assert "proprio.fields[1].format: how do these numbers describe a rotation?" in output
    assert "seen: named roll, pitch, yaw" in output
    text = (place / "plugins" / "robot" / "plugin.yaml").read_text()
    assert "check: 0" not in text
    assert declared(place)["proprio"]["fields"][1]["format"] == "euler_xyz_extrinsic"


def test_answers_are_checked_and_written(run: Run, place: Path) -> None:
    # In the file's order: horizon, the front camera's mount, then the state's frame.
    result = run("new-plugin", "robot", "--from", "data/reach", typed="soon\n0.8\nhead\nmoon\nworld\n" + "\n" * 30)
    assert result.returncode == 0, result.stderr
    assert "soon is no number" in result.stdout
    assert "moon is none of them" in result.stdout
    raw = declared(place)
    assert raw["horizon_s"] == 0.8
    assert raw["cameras"][0]["mount"] == "head"
    assert raw["proprio"]["fields"][0]["frame"] == "world"


def test_yes_asks_nothing_on_a_terminal(run: Run, place: Path) -> None:
    result = run("new-plugin", "robot", "--from", "data/reach", "--yes", typed="")
    assert result.returncode == 0, result.stderr
    assert "seen:" not in result.stdout


def test_breaking_off_the_questions_writes_nothing(run: Run, place: Path) -> None:
    before = tree(place)
    result = run("new-plugin", "robot", "--from", "data/reach", typed="\n")
    assert result.returncode == 130
    assert "interrupted" in result.stderr
    assert tree(place) == before
