"""X-VLA Platform: teach one vision-language-action base a new robot through a plugin and a prompt slot."""

import os

from xvla_platform.errors import XvlaError
from xvla_platform.hooks import hookimpl

__version__ = "0.1.0"
# Who started this process, asked before anything slow is imported: a launcher killed meanwhile has left it to another.
STARTED_BY = os.getppid()
__all__ = ["XvlaError", "__version__", "hookimpl"]
