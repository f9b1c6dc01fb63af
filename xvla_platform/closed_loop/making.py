"""An environment that cannot be made, as one line that names the plugin and the cure."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xvla_platform.errors import XvlaError

EXTRAS = {"gymnasium": "eval", "robosuite": "sim", "mujoco": "sim"}  # packages that an extra of ours installs
OPENGL = ("MUJOCO_GL", "EGL", "OpenGL", "OSMesa", "GLFW")


@contextmanager
def could_not_be_made(name: str, folder: Path) -> Iterator[None]:
    """What making the environment `name` of the plugin in `folder` raises, as one `XvlaError`."""
    field = f"environment {name}"
    try:
        yield
    except XvlaError as error:
        if error.file is not None:
            raise
        raise XvlaError(
            error.message,
            file=folder,
            field=error.field or field,
            found=error.found,
            allowed=error.allowed,
            hint=error.hint,
        ) from error
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise XvlaError(f"cannot be made: {said}", file=folder, field=field, hint=_cure(error, said)) from error


def _cure(error: Exception, said: str) -> str:
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if package in EXTRAS:
        return f"pip install 'xvla-platform[{EXTRAS[package]}]'"
    if package:
        return f"install the package that the plugin needs: {package}"
    if any(word in said for word in OPENGL):
        return "set MUJOCO_GL=egl, or osmesa where there is no GPU, and see that its library is installed"
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "the plugin"
    return f"mend {place}"
