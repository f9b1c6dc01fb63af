"""Which folder is the workspace, what it says, and how one is made."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import one_line_error, tree

from xvla_platform.errors import XvlaError
from xvla_platform.platform.workspace import CONFIG_TEXT, Workspace, WorkspaceConfig, examples_folder, init
from xvla_platform.specs.base import load_model


def test_found_in_the_documented_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workspace: Workspace) -> None:
    inside = workspace.root / "a" / "b"
    inside.mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert Workspace.find().root == elsewhere
    monkeypatch.chdir(inside)
    assert Workspace.find().root == workspace.root
    monkeypatch.setenv("XVLA_WORKSPACE", str(elsewhere))
    assert Workspace.find().root == elsewhere
    assert Workspace.find(inside).root == inside
    with pytest.raises(XvlaError, match="workspace not found"):
        Workspace.find(tmp_path / "missing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bass: x\n", "unknown field"),
        ("base: [1]\n", "base"),
        ("base: ''\n", "base"),
        ("schema_version: 2\n", "newer version"),
        ("base: a\nbase: b\n", "twice"),
        ("- 1\n", "expected a mapping"),
        ("{", "not valid YAML"),
        ("a: &a [*a]\n", "xvla.yaml"),
    ],
)
def test_a_wrong_configuration_names_file_and_field(workspace: Workspace, text: str, message: str) -> None:
    (workspace.root / "xvla.yaml").write_text(text)
    with pytest.raises(XvlaError, match=message) as caught:
        _ = Workspace(workspace.root).config
    assert "xvla.yaml" in str(caught.value)


def test_the_written_configuration_is_the_default(tmp_path: Path) -> None:
    (tmp_path / "xvla.yaml").write_text(CONFIG_TEXT)
    assert load_model(WorkspaceConfig, tmp_path / "xvla.yaml") == WorkspaceConfig()


def test_init_makes_a_workspace_and_keeps_what_exists(tmp_path: Path) -> None:
    made = init(tmp_path / "new")
    example = examples_folder()
    assert tree(made.plugins / "my_arm") == tree(example)
    (made.root / "xvla.yaml").write_text("base: other\n")
    (made.plugins / "my_arm" / "plugin.yaml").write_text("mine")
    assert init(made.root).config.base == "other"
    assert (made.plugins / "my_arm" / "plugin.yaml").read_text() == "mine"


@pytest.mark.parametrize("words", [("init", "/proc/xvla"), ("init", "/dev/null/xvla")])
def test_an_unwritable_place_is_one_line(xvla: Callable[..., Any], words: tuple[str, ...]) -> None:
    assert "cannot be written" in one_line_error(xvla(*words))


def test_locks_exclude_writers_of_one_topic_only(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xvla_platform.platform.workspace.LOCK_SECONDS", 0.1)
    with workspace.lock("registry-a"):
        with workspace.lock("registry-b"):
            pass
        with pytest.raises(XvlaError, match="another xvla command"), workspace.lock("registry-a"):
            pass
    with workspace.lock("registry-a"):
        pass
