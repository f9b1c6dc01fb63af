"""Who may import whom, and what the listing of commands may cost."""

import ast
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

PACKAGE = REPOSITORY / "xvla_platform"

# A module belongs to the longest prefix that is listed; it may import what stands no higher than itself.
# `platform.embodiments` orchestrates the data layer, so it stands above it; measures and baselines know arrays only,
# while the report runs an adaptation.
LAYERS: list[set[str]] = [
    {"errors"},
    {"hooks"},
    {"specs"},
    {"platform"},
    {"modelling", "data"},
    {"measure"},
    {"check"},
    {"scaffold"},
    {"platform.embodiments"},
    {"evaluation"},
    {"policy"},
    {"adapt"},
    {"bench"},
    {"evaluation.report"},
    {"closed_loop"},
    {"sim"},
    {"testing"},
    {"study"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MAY_IMPORT_CLICK = ("cli.", "sim.plugin", "sim.command")
# The layers below the models work without them.
HEAVY = ("torch", "transformers", "peft", "accelerate", "tensorboard")
LIGHT_LAYERS = ("errors", "hooks", "specs", "platform")

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "examples" not in path.parts)


def name_of(path: Path) -> str:
    """`platform.files` for `xvla_platform/platform/files.py`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def level_of(module: str) -> int | None:
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in LEVEL:
            return LEVEL[".".join(parts[:length])]
    return None


def imports_of(path: Path) -> set[str]:
    """Every module that the file imports anywhere but for type checking, as full names."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for child in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            if node.module and node.module.startswith("xvla_platform"):
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=[name_of(path) or "xvla_platform" for path in MODULES])
def test_imports_run_downwards(path: Path) -> None:
    module, imported = name_of(path), imports_of(path)
    own = level_of(module)
    assert own is not None or module in ("", "__main__"), f"{module} belongs to no layer"
    for name in imported:
        other = level_of(name.removeprefix("xvla_platform.")) if name.startswith("xvla_platform.") else None
        assert own is None or other is None or other <= own, f"{module} imports {name}, which stands above it"
    tops = {name.split(".")[0] for name in imported}
    if "click" in tops:
        assert f"{module}.".startswith(MAY_IMPORT_CLICK), f"{module} imports click"
    if module.split(".")[0] in LIGHT_LAYERS:
        assert not tops & set(HEAVY), f"{module} imports {tops & set(HEAVY)}"


@pytest.mark.parametrize("path", MODULES, ids=[name_of(path) or "xvla_platform" for path in MODULES])
def test_only_commands_print(path: Path) -> None:
    if name_of(path).startswith(("cli", "sim.")):
        return
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


def test_the_list_of_commands_is_light_and_quick() -> None:
    """Under 0.3 s of CPU, as the best of three, and nothing heavy imported."""
    code = (
        "import sys\nfrom xvla_platform.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print('LOADED', *sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    costs = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        costs.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    loaded = set(result.stdout.split("LOADED")[1].split())
    unwanted = {"torch", "transformers", "numpy", "pydantic", "peft", "huggingface_hub", "matplotlib", "mujoco", "yaml"}
    assert not loaded & unwanted
    assert min(costs) < 0.3, costs
    for command in ("add-embodiment", "adapt", "push", "record"):
        assert command in result.stdout
