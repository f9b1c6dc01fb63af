"""The built-in checks, registered through the same hook as anyone else's."""

from xvla_platform.hooks import hookimpl
from xvla_platform.platform.hookspecs import Factory

MODULES = (
    "structure",
    "units",
    "columns",
    "rotation",
    "actions",
    "gripper",
    "timing",
    "language",
    "episodes",
    "base",
    "cameras",
    "drift",
)


@hookimpl
def register_checks() -> list[Factory]:
    """One factory for each module of checks in this folder."""
    return [Factory(name=name, target=f"xvla_platform.check.{name}") for name in MODULES]
