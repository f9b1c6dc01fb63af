"""`xvla check` and the checks inside `add-embodiment`, as a user meets them: exit codes, files, `--accept`."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import REPOSITORY, one_line_error

Run = Callable[..., subprocess.CompletedProcess[str]]
FEW = ("--episodes", "6")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A workspace with the example robot, whose declaration a test may change."""
    (tmp_path / "xvla.yaml").write_text("schema_version: 1\nbase: xvla-tiny\n")
    plugin = tmp_path / "plugins" / "my_arm"
    plugin.mkdir(parents=True)
    (plugin / "plugin.yaml").write_text((REPOSITORY / "plugins" / "my_arm" / "plugin.yaml").read_text())
    (plugin / "demonstrations").symlink_to(REPOSITORY / "plugins" / "my_arm" / "demonstrations")
    return tmp_path


def declare(place: Path, old: str, new: str) -> None:
    path = place / "plugins" / "my_arm" / "plugin.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_a_report_never_replaces_other_files(place: Path, here: Run) -> None:
    """A folder with anything of the user's in it is refused before data is read; a former report gives way."""
    (place / "mine").mkdir()
    (place / "mine" / "thesis.txt").write_text("years of work")
    refused = here("check", "plugins/my_arm", *FEW, "--report", "mine", cwd=place)
    assert "is not free for a report" in one_line_error(refused)
    assert (place / "mine" / "thesis.txt").read_text() == "years of work"
    for _ in range(2):
        assert here("check", "plugins/my_arm", *FEW, "--report", "new/report", cwd=place).returncode == 0
    assert {path.name for path in (place / "new" / "report").iterdir()} == {"check.json", "report.html"}
    own = place / "runs" / "check" / "my_arm" / "notes.txt"
    own.parent.mkdir(parents=True)
    own.write_text("beside the report")
    assert here("check", "plugins/my_arm", *FEW, cwd=place).returncode == 0
    assert own.read_text() == "beside the report"


def test_a_clean_robot_passes_and_leaves_a_report(place: Path, here: Run) -> None:
    done = here("check", "plugins/my_arm", *FEW, cwd=place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("next: xvla add-embodiment plugins/my_arm")
    folder = place / "runs" / "check" / "my_arm"
    assert {path.name for path in folder.iterdir()} == {"check.json", "report.html"}
    assert json.loads((folder / "check.json").read_text())["counts"]["error"] == 0


def test_an_error_is_shown_explained_and_exits_with_one(place: Path, here: Run) -> None:
    declare(place, "unit: mm", "unit: m")
    done = here("check", "plugins/my_arm", *FEW, "--report", "elsewhere", "--json", cwd=place)
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert not found["ok"]
    assert found["base"]["id"] == "xvla-tiny"
    assert "XV101" in {item["code"] for item in found["findings"] if item["severity"] == "error"}
    assert found["next"] == "xvla check plugins/my_arm --explain XV101"
    assert json.loads((place / "elsewhere" / "check.json").read_text())["counts"] == found["counts"]
    told = here("check", "--explain", "xv101", cwd=place)
    assert told.returncode == 0
    assert "Why it matters:" in told.stdout


@pytest.mark.slow
def test_warnings_count_only_when_strict_and_what_is_ignored_does_not(place: Path, here: Run) -> None:
    declare(place, "horizon_s: 1.0", "horizon_s: 2.8")  # longer than some of the episodes
    words = ("check", "plugins/my_arm", *FEW, "--json")
    strict = here(*words, "--strict", cwd=place)
    assert strict.returncode == 1
    warned = {item["code"] for item in json.loads(strict.stdout)["findings"] if item["severity"] == "warning"}
    assert "XV421" in warned
    assert json.loads(strict.stdout)["counts"]["error"] == 0
    ignored = [word for code in sorted(warned) for word in ("--ignore", code)]
    assert here(*words, "--strict", *ignored, cwd=place).returncode == 0


def test_misuse_is_one_line(place: Path, here: Run) -> None:
    assert "unknown code" in one_line_error(here("check", "plugins/my_arm", "--ignore", "XV999", cwd=place))
    assert "unknown code" in one_line_error(here("check", "--explain", "units", cwd=place))
    assert "found your_arm; allowed: my_arm" in one_line_error(here("check", "your_arm", cwd=place))
    assert "name a plugin" in one_line_error(here("check", cwd=place))
    misspelt = here("add-embodiment", "plugins/my_arm", "--accept", "XV22", cwd=place)
    assert "--accept: unknown code" in one_line_error(misspelt)
    assert "checks" not in misspelt.stdout
    declare(place, "path: demonstrations", "path: elsewhere")
    assert "from the plugin's folder" in one_line_error(here("check", "plugins/my_arm", cwd=place))
    # The name alone finds the plugin in `plugins/`, for both commands.
    assert "from the plugin's folder" in one_line_error(here("check", "my_arm", cwd=place))
    assert "from the plugin's folder" in one_line_error(here("add-embodiment", "my_arm", cwd=place))
    assert not (place / "runs").exists()


def test_a_broken_configuration_is_refused_and_a_base_that_is_not_there_is_told(place: Path, here: Run) -> None:
    """Without its base a robot is checked for less: the answer says which base it was, or that there was none."""
    config = place / "xvla.yaml"
    config.write_text("schema_version: 1\nbasis: xvla-tiny\n")
    assert "xvla.yaml: basis: unknown field" in one_line_error(here("check", "plugins/my_arm", *FEW, cwd=place))
    config.write_text("schema_version: 1\nbase: nowhere\n")
    done = here("check", "plugins/my_arm", *FEW, "--json", cwd=place)
    assert json.loads(done.stdout)["base"] is None


def test_a_registration_is_refused_unless_each_error_is_accepted(place: Path, here: Run) -> None:
    declare(place, "open: 1.0, closed: 0.0", "open: 0.0, closed: 1.0")
    declare(place, "unit: mm", "unit: m")
    refused = here("add-embodiment", "plugins/my_arm", "--accept", "XV312", cwd=place)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    # Every code that has to be accepted is named, each once.
    options = refused.stderr.split("how to mend it; ")[1].split(" registers the robot")[0].split()
    assert options.count("--accept") == len(set(options)) - 1
    assert {"XV101", "XV220"} <= set(options)
    assert not (place / "embodiments" / "my_arm").exists()

    accepted = here("add-embodiment", "plugins/my_arm", *options, cwd=place)
    assert accepted.returncode == 0, accepted.stderr
    folder = place / "embodiments" / "my_arm"
    assert {"check.json", "report.html", "embodiment.yaml"} <= {path.name for path in folder.iterdir()}
    record = json.loads(here("show", "my_arm", "--json", cwd=place).stdout)["embodiment"]
    assert {item["code"] for item in record["accepted"]} == set(options) - {"--accept"}
