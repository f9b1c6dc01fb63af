"""One command at a time in a run's folder.

Two that resume one run would each place a version of it, and each write over the other's checkpoints.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xvla_platform.errors import XvlaError

PATIENCE_S = 5.0  # processes of a killed launch are gone within this


@contextmanager
def held(folder: Path, patience_s: float = PATIENCE_S) -> Iterator[int]:
    """Keep other commands out of `folder` while the block runs; a killed process keeps nobody out.

    Yields a descriptor. A process that inherits it keeps others out for as long as it lives.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise XvlaError(
                        "another command is at work on this run",
                        file=folder,
                        hint="wait for it, or end it and go on then",
                    ) from None
                time.sleep(0.1)
        yield descriptor
    finally:
        os.close(descriptor)
