"""Push and pull with the real Hub client over HTTP, against a Hub on loopback."""

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import fill_adaptation, one_line_error, tree
from hub_server import Hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


@pytest.fixture
def env(hub: Hub, tmp_path: Path) -> dict[str, str]:
    """The client's settings; they count only when set before its import, hence the commands in processes."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": "hf_writer",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """Another, empty workspace."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "xvla.yaml").write_text("schema_version: 1\n")
    return folder


def pushed(xvla: Callable[..., Any], adapted: Any, env: dict[str, str], *words: str) -> dict[str, Any]:
    result = xvla("push", "--json", *words, cwd=adapted.root, env=env)
    assert result.returncode == 0, result.stdout + result.stderr
    return dict(json.loads(result.stdout))


def test_pushed_and_pulled_back_byte_for_byte(
    xvla: Callable[..., Any], adapted: Any, hub: Hub, env: dict[str, str], empty: Path
) -> None:
    receipt = pushed(xvla, adapted, env)
    repo = hub.repos["lab/xvla-my_arm"]
    assert repo.private
    assert len(repo.history) == 2  # one for the repository, one for everything in it
    assert receipt["revision"] == repo.history[-1].oid
    record = json.loads((adapted.registry / "my_arm" / "v1.pushes.json").read_text())
    assert record["pushes"][0]["revision"] == repo.history[-1].oid

    result = xvla("pull", f"lab/xvla-my_arm@{receipt['revision']}", cwd=empty, env=env)
    assert result.returncode == 0, result.stderr
    assert tree(empty / "registry" / "my_arm" / "v1") == tree(adapted.registry / "my_arm" / "v1")
    assert (empty / "embodiments" / "my_arm" / "embodiment.yaml").is_file()
    assert "next: xvla eval my_arm/v1" in result.stdout

    again = xvla("pull", "lab/xvla-my_arm", cwd=empty, env=env)
    assert again.returncode == 0
    assert "here already" in again.stdout
    assert not (empty / "registry" / "my_arm" / "v2").exists()


def test_the_card_is_one_the_hub_understands(adapted: Any) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard.load(adapted.registry / "my_arm" / "v1" / "README.md")
    assert card.data.library_name == "peft"
    assert card.data.base_model == "xvla-tiny"
    assert card.data.to_dict()["base_model_relation"] == "adapter"
    assert card.data.pipeline_tag == "robotics"
    assert "embodiment:my_arm" in card.data.tags
    assert "| adapted | 0.01 |" in card.text


def test_pushing_twice_needs_a_name_and_makes_no_second_commit(
    xvla: Callable[..., Any], adapted: Any, hub: Hub, env: dict[str, str]
) -> None:
    pushed(xvla, adapted, env)
    line = one_line_error(xvla("push", cwd=adapted.root, env=env))
    assert "pushed already" in line
    assert pushed(xvla, adapted, env, "my_arm")["already_there"]
    assert len(hub.repos["lab/xvla-my_arm"].history) == 2


def test_a_second_push_replaces_the_files_of_the_first(
    xvla: Callable[..., Any], adapted: Any, hub: Hub, env: dict[str, str], robot: dict[str, Any]
) -> None:
    from xvla_platform.platform.registry import place

    hub.put("lab/xvla-my_arm", {".gitattributes": b"", "model.safetensors": b"old"}, private=True)
    place(adapted, "my_arm", lambda folder, version: fill_adaptation(folder, version, robot, value=2.0))
    assert pushed(xvla, adapted, env)["adaptation"] == "my_arm/v2"
    files = hub.repos["lab/xvla-my_arm"].history[-1].files
    assert {name: data for name, data in files.items() if name != ".gitattributes"} == tree(
        adapted.registry / "my_arm" / "v2"
    )


def test_a_different_version_of_that_number_gets_the_next_one(
    xvla: Callable[..., Any], adapted: Any, env: dict[str, str], workspace: Any, empty: Path, robot: dict[str, Any]
) -> None:
    from xvla_platform.platform.registry import place
    from xvla_platform.platform.workspace import Workspace

    pushed(xvla, adapted, env)
    place(Workspace(empty), "my_arm", lambda folder, version: fill_adaptation(folder, version, robot, value=9.0))
    result = xvla("pull", "lab/xvla-my_arm", cwd=empty, env=env)
    assert result.returncode == 0, result.stderr
    assert tree(empty / "registry" / "my_arm" / "v2") == tree(adapted.registry / "my_arm" / "v1")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("adapter_model.safetensors", b"other", "was altered"),
        ("metrics.json", None, "lacks a file"),
        ("extra.json", b"{}", "does not list"),
        ("evil.py", b"import os", "not plain data"),
        ("weights.bin", b"\x80", "not plain data"),
        ("embodiment.yaml", b"schema_version: 1\n", "was altered"),
        ("manifest.json", b"{}", "missing"),
        ("manifest.json", None, "no manifest.json"),
    ],
)
def test_a_tampered_repository_is_refused_and_nothing_is_placed(
    xvla: Callable[..., Any],
    adapted: Any,
    hub: Hub,
    env: dict[str, str],
    empty: Path,
    name: str,
    data: bytes | None,
    message: str,
) -> None:
    files = tree(adapted.registry / "my_arm" / "v1")
    files.pop(name, None)
    if data is not None:
        files[name] = data
    hub.put("lab/xvla-my_arm", files, private=True)
    before = tree(empty)
    line = one_line_error(xvla("pull", "lab/xvla-my_arm", cwd=empty, env=env))
    assert message in line
    assert tree(empty) == before


def test_what_cannot_be_reached_is_one_line(
    xvla: Callable[..., Any], adapted: Any, hub: Hub, env: dict[str, str], empty: Path
) -> None:
    pushed(xvla, adapted, env)
    hub.put("shop/gated", {"manifest.json": b"{}"}, gated=True)
    before = tree(empty)
    cases = {
        "lab/xvla-my_arm@nope": "no such revision",
        "lab/nothing": "does not exist",
        "shop/gated": "gated",
        "nonsense": "is not a Hub id",
        "ftp:somewhere": "unknown kind of storage",
        "dir:/nowhere": "no adaptation in this folder",
    }
    for source, message in cases.items():
        assert message in one_line_error(xvla("pull", source, cwd=empty, env=env)), source
    assert tree(empty) == before


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        ({"HF_TOKEN": ""}, (), "no Hub token"),
        ({"HF_TOKEN": "hf_wrong"}, (), "refused the token"),
        ({"HF_TOKEN": "hf_reader"}, (), "refused the token"),
        ({"HF_TOKEN": "hf_writer"}, ("--to", "someone/else"), "refused the token"),
        ({"HF_ENDPOINT": "down"}, (), "cannot be reached"),
        ({"HF_HUB_OFFLINE": "1"}, (), "cannot be reached"),
    ],
)
def test_a_push_that_cannot_happen_says_why_and_loses_nothing(
    xvla: Callable[..., Any],
    adapted: Any,
    env: dict[str, str],
    change: dict[str, str],
    words: tuple[str, ...],
    message: str,
) -> None:
    if change.get("HF_ENDPOINT") == "down":
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            change = {"HF_ENDPOINT": f"http://127.0.0.1:{unused.getsockname()[1]}"}
    before = tree(adapted.root)
    line = one_line_error(xvla("push", *words, cwd=adapted.root, env={**env, **change}))
    assert message in line
    assert tree(adapted.root) == before


def test_visibility_is_never_assumed(xvla: Callable[..., Any], adapted: Any, hub: Hub, env: dict[str, str]) -> None:
    hub.put("lab/open", {".gitattributes": b""})
    line = one_line_error(xvla("push", "--to", "lab/open", cwd=adapted.root, env=env))
    assert "--public" in line
    pushed(xvla, adapted, env, "--to", "lab/open", "--public")
    assert "manifest.json" in hub.repos["lab/open"].history[-1].files


def test_a_tampered_adaptation_is_not_pushed(
    xvla: Callable[..., Any], adapted: Any, hub: Hub, env: dict[str, str]
) -> None:
    (adapted.registry / "my_arm" / "v1" / "metrics.json").write_text("{}")
    assert "was altered" in one_line_error(xvla("push", cwd=adapted.root, env=env))
    assert not hub.repos


def test_a_gate_refuses_with_its_reason(
    xvla: Callable[..., Any], adapted: Any, hub: Hub, env: dict[str, str], robot: dict[str, Any]
) -> None:
    folder = adapted.plugins / "my_arm"
    folder.mkdir(parents=True)
    (folder / "plugin.py").write_text(
        "from xvla_platform import hookimpl\n\n\n"
        "@hookimpl\ndef check_before_push(manifest):\n    return [f'{manifest.embodiment} is secret']\n"
    )
    line = one_line_error(xvla("push", cwd=adapted.root, env=env), code=1)
    assert "my_arm is secret" in line
    assert not hub.repos


def test_a_shared_folder_needs_no_account(xvla: Callable[..., Any], adapted: Any, tmp_path: Path, empty: Path) -> None:
    share = tmp_path / "share"
    share.mkdir()
    offline = {"HF_HUB_OFFLINE": "1"}
    receipt = pushed(xvla, adapted, offline, "--to", f"dir:{share}")
    assert tree(share / "my_arm" / "v1") == tree(adapted.registry / "my_arm" / "v1")
    result = xvla("pull", receipt["to"], cwd=empty, env=offline)
    assert result.returncode == 0, result.stderr
    assert tree(empty / "registry" / "my_arm" / "v1") == tree(adapted.registry / "my_arm" / "v1")
    assert pushed(xvla, adapted, offline, "my_arm", "--to", f"dir:{share}")["already_there"]
    assert os.listdir(share / "my_arm") == ["v1"]


def test_a_shared_folder_is_not_made_public(xvla: Callable[..., Any], adapted: Any, tmp_path: Path) -> None:
    line = one_line_error(xvla("push", "--to", f"dir:{tmp_path}", "--public", cwd=adapted.root))
    assert "--public: is for the Hub" in line
    assert not (tmp_path / "my_arm").exists()


def test_an_at_sign_in_a_folders_name_is_no_revision(
    xvla: Callable[..., Any], adapted: Any, tmp_path: Path, empty: Path
) -> None:
    share = tmp_path / "me@lab" / "arms@v2"
    share.mkdir(parents=True)
    pushed(xvla, adapted, {}, "--to", f"dir:{share}")
    for source in (share / "my_arm", f"{share / 'my_arm'}@v1", share / "my_arm" / "v1"):
        result = xvla("pull", f"dir:{source}", cwd=empty)
        assert result.returncode == 0, result.stderr
    (share / "my_arm").rename(share / "my@arm")
    assert xvla("pull", f"dir:{share / 'my@arm'}", cwd=empty).returncode == 0
    assert "no such version; found v7" in one_line_error(xvla("pull", f"dir:{share / 'my@arm'}@v7", cwd=empty))


def test_links_in_a_shared_folder_are_refused(
    xvla: Callable[..., Any], adapted: Any, tmp_path: Path, empty: Path
) -> None:
    share = tmp_path / "share" / "my_arm" / "v1"
    shutil.copytree(adapted.registry / "my_arm" / "v1", share)
    (share / "metrics.json").unlink()
    (share / "metrics.json").symlink_to("/etc/hostname")
    assert "symbolic link" in one_line_error(xvla("pull", f"dir:{share}", cwd=empty))


def test_a_base_on_the_hub_is_fetched_without_its_code(
    hub: Hub, env: dict[str, str], tmp_path: Path, xvla: Callable[..., Any]
) -> None:
    import subprocess
    import sys

    config = json.dumps({"model_type": "xvla", "num_domains": 30, "num_actions": 30, "action_mode": "ee6d"})
    repo = hub.put("some/base", {"config.json": config.encode(), "model.safetensors": b"w", "modeling.py": b"1/0"})
    code = (
        "from xvla_platform.platform.bases import resolve_base as r; b = r('some/base');"
        "print(b.revision, b.num_domains, len(b.used_domains), sorted(p.name for p in b.folder.iterdir()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == f"{repo.history[-1].oid} 30 19 ['config.json', 'model.safetensors']".split()
