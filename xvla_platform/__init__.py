"""X-VLA Platform: teach one vision-language-action base a new robot through a plugin and a prompt slot."""

from xvla_platform.errors import XvlaError
from xvla_platform.hooks import hookimpl

__version__ = "0.1.0"
__all__ = ["XvlaError", "__version__", "hookimpl"]
