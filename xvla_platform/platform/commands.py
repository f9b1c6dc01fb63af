"""Commands from plugins, found without importing what the listing of commands does not need.

In: the `xvla` group. Out: nothing; the plugins' `register_commands` have run. Only built-ins that have
commands and installed packages are asked: a robot's own `plugin.py` is not in force before its robot is
    named.
"""

import importlib
from importlib.metadata import entry_points
from typing import Any

import pluggy

from xvla_platform.errors import XvlaError
from xvla_platform.platform import hookspecs

BUILTINS_WITH_COMMANDS = ("xvla_platform.sim.plugin",)


def contribute_commands(cli: Any) -> None:
    """Run every `register_commands`; a command that exists already is an error that names the plugin."""
    if entry_points(group="xvla"):
        from xvla_platform.platform.plugins import build_manager

        manager = build_manager()
    else:
        manager = pluggy.PluginManager("xvla")
        manager.add_hookspecs(hookspecs)
        for name in BUILTINS_WITH_COMMANDS:
            manager.register(importlib.import_module(name), name=name)
    for implementation in manager.hook.register_commands.get_hookimpls():
        before = dict(cli.commands)
        implementation.function(cli)
        taken = [name for name in cli.commands if name in cli.table and name not in before]
        taken += [name for name in before if cli.commands.get(name) is not before[name]]
        if taken:
            raise XvlaError(
                f"plugin '{implementation.plugin_name}' replaces the command '{taken[0]}'",
                hint="rename the plugin's command",
            )
