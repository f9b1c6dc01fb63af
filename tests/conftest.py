"""What the tests share: a workspace of their own, the real command line, and a small sealed adaptation."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Started in the background of a script, this process ignores Ctrl-C, and so would the commands that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

FIELDS: list[dict[str, Any]] = [
    {"name": "position", "kind": "position", "size": 3, "unit": "m", "frame": "base"},
    {
        "name": "rotation",
        "kind": "rotation",
        "size": 3,
        "unit": "rad",
        "format": "euler_xyz_extrinsic",
        "frame": "base",
    },
    {"name": "gripper", "kind": "gripper", "size": 1, "unit": "m", "open": 0.08, "closed": 0.0},
]
ROBOT: dict[str, Any] = {
    "schema_version": 1,
    "name": "my_arm",
    "description": "An arm of the tests.",
    "control_hz": 10,
    "horizon_s": 1.0,
    "cameras": [
        {
            "name": name,
            "role": role,
            "mount": "fixed",
            "resolution": [32, 32],
            "key": f"observation.images.{name}",
        }
        for name, role in (("front", "main"), ("wrist", "auxiliary"))
    ],
    "proprio": {"key": "observation.state", "fields": FIELDS},
    "action": {"key": "action", "fields": [{**field, "reference": "absolute"} for field in FIELDS]},
    "dataset": {"format": "lerobot", "path": "demonstrations"},
}


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or writes the real home, the user's workspace or the user's token."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    for name in ("XVLA_WORKSPACE", "HF_TOKEN", "HF_HOME", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def robot() -> dict[str, Any]:
    """A valid `plugin.yaml` as a value that a test may change."""
    copy: dict[str, Any] = json.loads(json.dumps(ROBOT))
    return copy


@pytest.fixture
def xvla(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the real command line in a process of its own; `cwd` is an empty workspace unless given."""

    def run(
        *words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "xvla_platform.cli.main", *words],
            cwd=cwd or tmp_path,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), **(env or {})},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            **options,
        )

    return run


@pytest.fixture
def here(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line in this process, which is quicker than a new one: `here(*words, cwd=folder)`."""
    from xvla_platform.cli.main import main

    def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(cwd)
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main(words)
        output = capfd.readouterr()
        return subprocess.CompletedProcess(words, int(left.value.code or 0), output.out, output.err)

    return run


def write_plugin(folder: Path, robot: dict[str, Any]) -> Path:
    """`folder/plugin.yaml` from a value."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plugin.yaml").write_text(yaml.safe_dump(robot, sort_keys=False))
    return folder


def write_base(folder: Path, *, num_domains: int = 8, weights: bytes = b"weights", **config: Any) -> Path:
    """A base as far as the platform looks into one: rows 0-2 are those of its pretraining."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {"model_type": "xvla", "num_domains": num_domains, "num_actions": 10, "action_mode": "ee6d", **config}
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "domains.json").write_text(json.dumps({str(i): f"robot{i}" for i in range(3)}))
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def one_line_error(result: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """Assert that the command failed as a user's mistake must: one line, no traceback, that exit code."""
    assert result.returncode == code, result.stdout + result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: "), lines[0]
    assert "Traceback" not in result.stderr
    return lines[0]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, hidden ones included, by relative path; lock files apart."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".locks" not in path.parts
    }


def make_record(robot: dict[str, Any], *, domain_id: int = 3, fingerprint: str = "f" * 64) -> Any:
    """An embodiment record as `add-embodiment` writes it."""
    from xvla_platform.specs.records import EmbodimentRecord

    return EmbodimentRecord.model_validate(
        {
            "spec": robot,
            "plugin": "plugins/my_arm",
            "plugin_sha256": "0" * 64,
            "base": {"id": "xvla-tiny", "fingerprint": fingerprint},
            "slot": {"domain_id": domain_id, "num_domains": 8},
            "action_space": "ee6d",
            "rotation_layout": "rot6d_interleaved",
            "data": {
                "format": "lerobot",
                "path": "demonstrations",
                "fingerprint": "d" * 64,
                "episodes": 2,
                "frames": 20,
                "fps": 10.0,
            },
        }
    )


def fill_adaptation(folder: Path, version: int, robot: dict[str, Any], *, value: float = 1.0) -> None:
    """A small, complete artifact: real safetensors, card, contract and manifest; `value` tells two apart."""
    import numpy as np
    from safetensors.numpy import save_file

    from xvla_platform.platform.artifact import seal
    from xvla_platform.platform.card import model_card
    from xvla_platform.platform.files import write_json, write_text
    from xvla_platform.platform.records import RECORD_NAME, record_text
    from xvla_platform.specs.records import Manifest

    record = make_record(robot)
    metrics = {
        "table": [
            {"policy": "hold still", "errors": {"position": 0.2}},
            {"policy": "adapted", "errors": {"position": 0.01}},
        ],
        "units": {"position": "m"},
        "test_episodes": 1,
        "test_frames": 10,
    }
    manifest = Manifest(
        embodiment=record.spec.name,
        version=version,
        created=f"2026-01-01T00:00:{version:02d}Z",
        tuning="prompt",
        base=record.base,
        slot=record.slot,
        data=record.data,
        seed=0,
        versions={"xvla-platform": "0.1.0"},
        files={},
    )
    save_file({"rows": np.full((2, 64), value, dtype=np.float32)}, str(folder / "adapter_model.safetensors"))
    write_json(folder / "adapter_config.json", {"peft_type": "LORA"})
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "stats.json", {"proprio": {}})
    write_text(folder / RECORD_NAME, record_text(record))
    write_text(folder / "README.md", model_card(manifest, record, metrics))
    seal(folder, manifest)


@pytest.fixture
def workspace(tmp_path: Path) -> Any:
    """An empty workspace."""
    from xvla_platform.platform.workspace import CONFIG_NAME, CONFIG_TEXT, Workspace

    root = tmp_path / "workspace"
    root.mkdir()
    (root / CONFIG_NAME).write_text(CONFIG_TEXT)
    return Workspace(root)


@pytest.fixture
def adapted(workspace: Any, robot: dict[str, Any]) -> Any:
    """The workspace with one adaptation of `my_arm`."""
    from xvla_platform.platform.registry import place

    place(workspace, "my_arm", lambda folder, version: fill_adaptation(folder, version, robot))
    return workspace


@pytest.fixture(scope="module")
def table() -> Iterator[Any]:
    """The simulated my_arm at its table; building it takes seconds. Needs the extra [sim]."""
    from xvla_platform.sim.environment import TableEnvironment
    from xvla_platform.sim.setup import load_setup

    environment = TableEnvironment(load_setup(REPOSITORY / "plugins" / "my_arm"))
    yield environment
    environment.close()
