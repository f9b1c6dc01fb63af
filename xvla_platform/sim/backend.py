"""Access to the optional simulator packages.

robosuite and MuJoCo are heavy and optional, so nothing else imports them at module level.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from xvla_platform.errors import XvlaError


def require_simulator() -> None:
    """Raise XvlaError unless the ``sim`` extra is installed; choose a headless OpenGL backend.

    MuJoCo reads ``MUJOCO_GL`` when it is imported, hence the choice is made here, before any import.
    """
    missing = [name for name in ("robosuite", "mujoco") if importlib.util.find_spec(name) is None]
    if missing:
        raise XvlaError(
            f"the simulator is not installed (missing: {', '.join(missing)})",
            hint="pip install 'xvla-platform[sim]'",
        )
    if "MUJOCO_GL" not in os.environ and not os.environ.get("DISPLAY"):
        os.environ["MUJOCO_GL"] = "egl" if ctypes.util.find_library("EGL") else "osmesa"


@contextmanager
def quiet_robosuite() -> Iterator[None]:
    """Silence robosuite's import-time and construction-time log lines (they concern its own set-up)."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
