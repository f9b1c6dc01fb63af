"""The wheel holds what `xvla init` and the example need, and nothing that was left lying about."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import REPOSITORY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    words = ("-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(REPOSITORY))
    subprocess.run([sys.executable, *words], check=True, capture_output=True, text=True)
    (path,) = out.glob("*.whl")
    return path


def shipped() -> bool:
    return (REPOSITORY / "xvla_platform" / "bases" / "xvla-tiny" / "model.safetensors").is_file()


def test_contents(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    example = "xvla_platform/examples/my_arm"
    assert {"xvla_platform/py.typed", "xvla_platform/__main__.py", "xvla_platform/platform/pretrained_domains.yaml"} < (
        names
    )
    assert {f"{example}/plugin.yaml", f"{example}/sim.yaml", f"{example}/README.md"} < names
    source = REPOSITORY / "plugins" / "my_arm" / "demonstrations"
    demonstrations = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    assert {f"{example}/demonstrations/{name}" for name in demonstrations} < names
    tops = {name.removeprefix(f"{example}/").split("/")[0] for name in names if name.startswith(example)}
    assert tops == {"plugin.yaml", "sim.yaml", "README.md", "demonstrations"}
    assert ("xvla_platform/bases/xvla-tiny/model.safetensors" in names) == shipped()


def test_it_works_from_an_empty_directory(wheel: Path, tmp_path: Path) -> None:
    """Installed without dependencies beside the tests' own: a workspace, and with the base a registered robot."""
    target, empty = tmp_path / "target", tmp_path / "empty"
    empty.mkdir()
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target))
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    env = {**os.environ, "PYTHONPATH": str(target), "XDG_CACHE_HOME": str(tmp_path)}
    env.pop("XVLA_WORKSPACE", None)

    def xvla(*words: str) -> str:
        command = [sys.executable, "-m", "xvla_platform", *words]
        done = subprocess.run(command, cwd=empty, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    xvla("init", ".")
    assert (empty / "plugins" / "my_arm" / "demonstrations" / "meta" / "info.json").is_file()
    if shipped():
        xvla("add-embodiment", "plugins/my_arm")
        assert (empty / "embodiments" / "my_arm" / "embodiment.yaml").is_file()
