"""Plugins: found through the same hooks as the built-ins, refused by name when wrong."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, write_plugin

from xvla_platform.errors import XvlaError
from xvla_platform.platform.plugins import build_manager, contributions, load_plugin

HEAD = "from xvla_platform import hookimpl\nfrom xvla_platform.platform.hookspecs import Factory\n\n\n"


def plugin_py(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "plugin.py").write_text(HEAD + text)
    return folder


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a package importable with an entry point of group `xvla`, as pip would."""

    def make(name: str, text: str) -> Path:
        site = tmp_path / "site"
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[xvla]\n{name} = {name}\n")
        (site / f"{name}.py").write_text(HEAD + text)
        monkeypatch.syspath_prepend(str(site))
        return site

    return make


def test_builtins_come_through_the_hooks() -> None:
    manager = build_manager()
    assert "lerobot" in contributions(manager, "register_dataset_readers")
    assert set(contributions(manager, "register_storages")) == {"hub", "dir"}


def test_a_robots_own_code_joins_under_a_private_name(tmp_path: Path) -> None:
    path = list(sys.path)
    folder = plugin_py(
        tmp_path,
        "@hookimpl\ndef register_plans():\n    return [Factory(name='mine', target=lambda: 42)]\n",
    )
    manager = build_manager(folder)
    assert contributions(manager, "register_plans")["mine"].load()() == 42
    assert sys.path == path
    assert "plugin" not in sys.modules
    assert "mine" not in contributions(build_manager(), "register_plans")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@hookimpl\ndef register_plan():\n    return []\n", r"no hook 'register_plan'.*Did you mean 'register_plans'"),
        ("@hookimpl\ndef zzz():\n    return []\n", r"no hook 'zzz'; allowed: .*register_storages"),
        ("@hookimpl\ndef register_plans(nonsense):\n    return []\n", "nonsense"),
        ("def broken(:\n", r"plugin\.py: line 5: cannot be imported: SyntaxError"),
        ("1 / 0\n", r"plugin\.py: line 5: cannot be imported: ZeroDivisionError"),
        ("import does_not_exist\n", r"line 5.*does_not_exist"),
    ],
)
def test_a_wrong_plugin_py_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(XvlaError, match=message) as caught:
        build_manager(plugin_py(tmp_path, text))
    assert "plugin.py" in str(caught.value)


def test_one_name_from_two_plugins_is_an_error(tmp_path: Path) -> None:
    folder = plugin_py(
        tmp_path, "@hookimpl\ndef register_storages():\n    return [Factory(name='hub', target='x:y')]\n"
    )
    with pytest.raises(XvlaError, match=r"'hub' is contributed twice.*storages_plugin"):
        contributions(build_manager(folder), "register_storages")


def test_an_installed_package_brings_robots(install: Any, tmp_path: Path, robot: dict[str, Any]) -> None:
    site = install(
        "acme",
        "from pathlib import Path\n\n\n@hookimpl\ndef register_embodiments():\n"
        "    return [Path(__file__).with_name('acme_arm')]\n",
    )
    write_plugin(site / "acme_arm", robot)
    loaded = load_plugin("acme_arm")
    assert loaded.folder == site / "acme_arm"
    assert loaded.spec.name == "my_arm"
    with pytest.raises(XvlaError, match=r"no installed robot of that name.*acme_arm"):
        load_plugin("other_arm")


def test_an_installed_package_that_breaks_is_named(install: Any) -> None:
    install("acme_broken", "raise RuntimeError('boom')\n")
    with pytest.raises(XvlaError, match=r"entry point acme_broken.*boom"):
        build_manager()


def test_an_installed_command_appears_and_may_not_replace_one(install: Any, xvla: Any, tmp_path: Path) -> None:
    install(
        "acme_commands",
        "import click\n\n\n@hookimpl\ndef register_commands(cli):\n"
        "    cli.add_command(click.Command('greet', callback=lambda: print('hello'), short_help='Say hello.'))\n",
    )
    environment = {"PYTHONPATH": f"{REPOSITORY}:{tmp_path / 'site'}"}
    assert "Say hello." in xvla("--help", env=environment).stdout
    assert xvla("greet", env=environment).stdout == "hello\n"
    module = tmp_path / "site" / "acme_commands.py"
    module.write_text(module.read_text().replace("'greet'", "'push'"))
    assert "replaces the command 'push'" in xvla("--help", env=environment).stderr


def test_the_declaration_is_read_with_its_hash(tmp_path: Path, robot: dict[str, Any]) -> None:
    folder = write_plugin(tmp_path / "any_name", robot)
    first = load_plugin(folder)
    assert first.spec.name == "my_arm"
    (folder / "plugin.yaml").write_text((folder / "plugin.yaml").read_text() + "# a remark\n")
    assert load_plugin(folder).yaml_sha256 != first.yaml_sha256
    for source, message in (
        (folder / "plugin.yaml", "is a file"),
        (tmp_path, r"no plugin\.yaml"),
        (tmp_path / "gone" / "x", "not found"),
    ):
        with pytest.raises(XvlaError, match=message):
            load_plugin(source)


@pytest.mark.parametrize(
    ("part", "name", "field"),
    [
        ((), "control_hz", "control_hz"),
        (("dataset",), "tail_margin", r"dataset\.tail_margin"),
        (("action", "fields", 2), "size", r"action\.fields\[2\]\.size"),
        (("proprio", "fields", 2), "open", r"proprio\.fields\[2\]\.open"),
    ],
)
def test_true_is_no_number(tmp_path: Path, robot: dict[str, Any], part: tuple[Any, ...], name: Any, field: str) -> None:
    """A rate of `yes` is not 1 Hz."""
    robot = copy.deepcopy(robot)
    holder = robot
    for step in part:
        holder = holder[step]
    holder[name] = True
    with pytest.raises(XvlaError, match=rf"plugin\.yaml: {field}: expected a number"):
        load_plugin(write_plugin(tmp_path / "my_arm", robot))


@pytest.mark.parametrize("scale", [1e300, -1e13, 1e-300])
def test_a_scale_beyond_all_measure_is_refused(tmp_path: Path, robot: dict[str, Any], scale: float) -> None:
    """The squares of what it makes of a recording would be infinite."""
    robot = copy.deepcopy(robot)
    robot["proprio"]["fields"][0]["scale"] = scale
    with pytest.raises(XvlaError, match=r"proprio\.fields\[0\]: field 'position': `scale` .* allowed: 1e-12 to 1e\+12"):
        load_plugin(write_plugin(tmp_path / "my_arm", robot))


def test_building_a_manager_imports_no_torch() -> None:
    code = (
        "import sys\nfrom xvla_platform.platform.plugins import build_manager, contributions\nm = build_manager()\n"
        "for hook in ('register_plans', 'register_storages', 'register_dataset_readers'): contributions(m, hook)\n"
        "print(sorted({'torch', 'transformers', 'peft', 'mujoco', 'matplotlib'} & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert result.stdout == "[]\n"
