"""The plugin-author guide, carried out: its files written where it says, its commands run, its tests passed."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

GUIDE = REPOSITORY / "docs" / "plugin-author-guide.md"
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PATH = {"PYTHONPATH": str(REPOSITORY)}


def blocks(section: str | None = None) -> list[tuple[str, str, str]]:
    """(language, title, text) of the code blocks, of one section or of the page."""
    text = GUIDE.read_text(encoding="utf-8")
    if section is not None:
        text = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return BLOCK.findall(text)


def block(title: str) -> str:
    (text,) = [text for _, name, text in blocks() if name == title]
    return text


def commands(section: str, language: str = "bash") -> list[list[str]]:
    """The command lines of a section's untitled blocks of that language."""
    lines = [
        line for kind, title, text in blocks(section) if kind == language and not title for line in text.splitlines()
    ]
    return [shlex.split(line) for line in lines if line.startswith(("xvla ", "pytest ", "python "))]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the lab's recordings and its plugin, as the guide makes them."""
    root = tmp_path_factory.mktemp("lab")
    (root / "xvla.yaml").write_text("schema_version: 1\n")
    (root / "record.py").write_text(block("record.py"))
    _run([sys.executable, "record.py"], root)
    for _, title, text in blocks():
        if title.startswith("plugins/acme_arm/"):
            (root / title).write_text(text, encoding="utf-8")
    return root


def _run(words: list[str], cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        words, cwd=cwd, env={**os.environ, **PATH, **env}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def test_a_format_of_your_own(lab: Path, xvla: Callable[..., Any]) -> None:
    """The recordings are checked and registered through the guide's own reader, and the guide's check speaks."""
    words = commands("A format of your own")
    assert [line[:2] for line in words] == [["xvla", "check"], ["xvla", "add-embodiment"]]
    for line in words:
        result = xvla(*line[1:], cwd=lab)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "ACME101" not in result.stdout
    assert (lab / "embodiments" / "acme_arm" / "embodiment.yaml").is_file()


def test_the_guides_check_finds_what_it_is_for(lab: Path) -> None:
    """One episode recorded below the table is named, with its number."""
    from xvla_platform.check.context import make_context
    from xvla_platform.platform.embodiments import open_data
    from xvla_platform.platform.plugins import load_module, load_plugin
    from xvla_platform.testing.faults.views import NumbersView

    plugin = load_plugin(lab / "plugins" / "acme_arm")

    def sink(episode: int, vectors: dict[str, Any]) -> dict[str, Any]:
        vectors["proprio"][:, 2] -= 0.1 if episode == 3 else 0.0
        return vectors

    reader = NumbersView(open_data(plugin.spec, plugin.folder), plugin.spec, sink)
    check = load_module(plugin.folder / "plugin.py").above_the_table
    (finding,) = check(make_context(plugin.spec, reader))
    assert (finding.code, finding.episodes) == ("ACME101", (3,))
    assert re.fullmatch(r"the lowest point of episode 3 is -\d+ mm", finding.measured)
    assert finding.severity == "warning"


def test_the_guides_own_tests_pass(lab: Path) -> None:
    (line,) = [line for line in commands("Testing with the kit", "text") if line[0] == "pytest"]
    done = _run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *line[1:]], lab)
    assert "3 passed" in done.stdout


def test_the_command_that_plants_mistakes(lab: Path) -> None:
    (line,) = [line for line in commands("Testing with the kit", "text") if line[0] == "python"]
    done = _run([sys.executable, *line[1:]], lab)
    assert "clean acme_arm: no error" in done.stdout
    assert re.search(r"2 kinds in \d+ strengths, \d+ cases: \d+ named", done.stdout)


def test_the_kit_says_what_the_guide_quotes(lab: Path) -> None:
    """The failure shown in the guide is the one that a reader gets which sorts its frames."""
    from dataclasses import replace

    from xvla_platform.platform.plugins import load_module
    from xvla_platform.testing import NotConformantError, assert_reader_conformant

    npz = load_module(lab / "plugins" / "acme_arm" / "plugin.py").NPZ
    opened = npz.open

    def sorting(root: Path) -> Any:
        reader = opened(root)
        frames = reader.frames
        reader.frames = lambda episode, key, indices: frames(episode, key, sorted(indices))
        return reader

    place = lab / "plugins" / "acme_arm" / "recordings"
    with pytest.raises(NotConformantError) as caught:
        assert_reader_conformant(replace(npz, open=sorting), place)
    quoted = [text for kind, _, text in blocks("Testing with the kit") if kind == "text" and "KIT207" in text]
    assert str(caught.value).replace(str(place), place.name) + "\n" == quoted[0]


@pytest.mark.slow
def test_the_package_installs_and_its_robot_goes_by_its_name(
    lab: Path, xvla: Callable[..., Any], tmp_path: Path
) -> None:
    """Built and installed by pip into a folder, then found through its entry point."""
    package = tmp_path / "acme-npz" / "acme_npz"
    robot = package / "acme_arm"
    robot.mkdir(parents=True)
    (tmp_path / "acme-npz" / "pyproject.toml").write_text(block("acme-npz/pyproject.toml"))
    hook = block("acme_npz/__init__.py, its end").partition("@hookimpl")[2]
    (package / "__init__.py").write_text(block("plugins/acme_arm/plugin.py") + "\n\n@hookimpl" + hook)
    for name in ("plugin.yaml", "README.md"):
        (robot / name).write_text(block(f"plugins/acme_arm/{name}"), encoding="utf-8")
    recordings = lab / "plugins" / "acme_arm" / "recordings"
    site = tmp_path / "site"
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    _run([sys.executable, "-m", "pip", "install", *options, "--target", str(site), "./acme-npz"], tmp_path)
    (site / "acme_npz" / "acme_arm" / "recordings").symlink_to(recordings)
    (line,) = commands("Packaging")
    (tmp_path / "xvla.yaml").write_text("schema_version: 1\n")
    path = f"{REPOSITORY}{os.pathsep}{site}"
    result = xvla(*line[1:], cwd=tmp_path, env={"PYTHONPATH": path})
    assert result.returncode == 0, result.stdout + result.stderr
    assert "acme_arm" in result.stdout


@pytest.mark.slow
def test_from_a_dataset_to_a_checked_plugin(xvla: Callable[..., Any], tmp_path: Path) -> None:
    """The first section, line by line, on the worked example's recordings."""
    for line in commands("From a dataset to a checked plugin"):
        result = xvla(*line[1:], cwd=tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "embodiments" / "second_arm" / "embodiment.yaml").is_file()
    assert (tmp_path / "runs" / "check" / "second_arm" / "report.html").is_file()


def test_every_block_of_the_guide_is_used() -> None:
    """Nothing in the guide is only shown: what has a title is written, what has none is run or quoted above."""
    used = Path(__file__).read_text()
    for language, title, _ in blocks():
        assert not title or title.startswith("plugins/acme_arm/") or f'"{title}"' in used, title
        assert title or language in ("bash", "text"), language
    functions = set(re.findall(r"`(assert_\w+)\(", GUIDE.read_text()))
    import xvla_platform.testing as kit

    assert functions == {name for name in kit.__all__ if name.startswith("assert_")}
