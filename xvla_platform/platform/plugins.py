"""Finding plugins and reading a robot's declaration.

In: the folder of a robot plugin, or the name of an installed robot. Out: a `pluggy.PluginManager` with the
built-ins, the installed packages (entry-point group `xvla`) and that folder's `plugin.py`; and a
`LoadedPlugin`. There is no global manager: whoever needs one builds one.
"""

import difflib
import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from xvla_platform.errors import XvlaError
from xvla_platform.platform import hookspecs
from xvla_platform.platform.files import real_path
from xvla_platform.specs.base import load_model
from xvla_platform.specs.embodiment import EmbodimentSpec

PROJECT = "xvla"
BUILTINS = (
    "xvla_platform.data.plugin",
    "xvla_platform.check.plugin",
    "xvla_platform.platform.storages_plugin",
    "xvla_platform.adapt.plugin",
    "xvla_platform.sim.plugin",
)


@dataclass(frozen=True, kw_only=True)
class LoadedPlugin:
    """A robot's declaration and where it came from; `yaml_sha256` lets a later edit be noticed."""

    spec: EmbodimentSpec
    folder: Path
    yaml_sha256: str


def build_manager(plugin_folder: Path | None = None) -> pluggy.PluginManager:
    """Every plugin that is in force, and, given a robot's plugin folder, that folder's `plugin.py` too."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    for name in BUILTINS:
        _register(manager, importlib.import_module(name), name)
    for entry in sorted(entry_points(group=PROJECT), key=lambda entry: entry.name):
        try:
            plugin = entry.load()
        except Exception as error:
            raise XvlaError(
                f"the installed plugin cannot be imported: {type(error).__name__}: {error}",
                field=f"entry point {entry.name} = {entry.value}",
                hint="mend or uninstall the package that brings it",
            ) from error
        _register(manager, plugin, entry.name)
    if plugin_folder is not None and (plugin_folder / "plugin.py").is_file():
        path = plugin_folder / "plugin.py"
        _register(manager, load_module(path), str(path))
    _refuse_unknown_hooks(manager)
    return manager


def contributions(manager: pluggy.PluginManager, hook: str) -> dict[str, Any]:
    """Name to descriptor of everything that a `register_*` hook yields; one name from two plugins is an
    error.
    """
    found: dict[str, Any] = {}
    source: dict[str, str] = {}
    for implementation in getattr(manager.hook, hook).get_hookimpls():
        try:
            items = list(implementation.function() or ())
        except XvlaError:
            raise
        except Exception as error:
            raise XvlaError(
                f"the hook {hook} failed: {type(error).__name__}: {error}",
                file=implementation.plugin_name,
                hint="mend the plugin, or uninstall the package that brings it",
            ) from error
        for item in items:
            if item.name in found:
                raise XvlaError(
                    f"{hook}: the name '{item.name}' is contributed twice",
                    found=f"{source[item.name]} and {implementation.plugin_name}",
                    hint="rename one of them",
                )
            found[item.name], source[item.name] = item, implementation.plugin_name
    return found


def load_plugin(source: str | Path) -> LoadedPlugin:
    """The declaration in a plugin folder, or of an installed robot of that name."""
    folder = _plugin_folder(source)
    path = folder / "plugin.yaml"
    if not path.is_file():
        raise XvlaError("no plugin.yaml in this folder", file=folder)
    spec = load_model(EmbodimentSpec, path)
    return LoadedPlugin(spec=spec, folder=folder, yaml_sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def installed_embodiments() -> dict[str, Path]:
    """Folder name to folder of the robots that installed packages bring."""
    folders: dict[str, Path] = {}
    for paths in build_manager().hook.register_embodiments():
        for path in paths:
            folder = Path(path).resolve()
            if folders.setdefault(folder.name, folder) != folder:
                raise XvlaError(
                    f"two installed packages bring a robot '{folder.name}'",
                    found=f"{folders[folder.name]} and {folder}",
                    hint="name the folder you mean",
                )
    return folders


def load_module(path: Path) -> ModuleType:
    """Import a file by its path under a private name, leaving `sys.path` alone; its errors name file and
    line.
    """
    name = "_xvla_plugin_" + hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise XvlaError("is not a Python file", file=path)
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickling look a class's module up here.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise XvlaError(
            f"cannot be imported: {type(error).__name__}: {error}", file=path, field=_line_of(error, path)
        ) from error
    return module


def _line_of(error: Exception, path: Path) -> str | None:
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).resolve() == path.resolve()
    ]
    return f"line {lines[-1]}" if lines else None


def _plugin_folder(source: str | Path) -> Path:
    path = Path(source).expanduser()
    real = real_path(path)
    if real.is_dir():
        return real
    if path.is_file():
        raise XvlaError("is a file; name the plugin's folder", file=path, found=path.name)
    if isinstance(source, str) and re.fullmatch(r"[A-Za-z0-9_-]+", source):
        installed = installed_embodiments()
        if source in installed:
            return installed[source]
        raise XvlaError(
            "no such folder, and no installed robot of that name",
            found=source,
            allowed=f"a folder with plugin.yaml, or an installed robot ({', '.join(installed) or 'none'})",
        )
    raise XvlaError("plugin folder not found", file=path)


def _register(manager: pluggy.PluginManager, plugin: object, name: str) -> None:
    try:
        manager.register(plugin, name=name)
    except ValueError:
        raise XvlaError("two plugins have one name", found=name, hint="uninstall or rename one") from None
    except pluggy.PluginValidationError as error:
        raise XvlaError(f"plugin '{name}': {error}") from None


def _refuse_unknown_hooks(manager: pluggy.PluginManager) -> None:
    known = [name for name in vars(hookspecs) if getattr(getattr(hookspecs, name), f"{PROJECT}_spec", None)]
    for name, plugin in manager.list_name_plugin():
        for attribute in dir(plugin):
            options = getattr(getattr(plugin, attribute, None), f"{PROJECT}_impl", None)
            if not isinstance(options, dict) or options.get("optionalhook") or attribute in known:
                continue
            near = difflib.get_close_matches(attribute, known, 1)
            raise XvlaError(
                f"there is no hook '{attribute}'",
                file=name,
                allowed=sorted(known),
                hint=f"did you mean '{near[0]}'?" if near else None,
            )
    manager.check_pending()
