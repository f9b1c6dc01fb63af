"""The built-in dataset formats, registered through the same hook as anyone else's."""

from xvla_platform.data.reader import ReaderFactory
from xvla_platform.hooks import hookimpl


@hookimpl
def register_dataset_readers() -> list[ReaderFactory]:
    """LeRobot 3.0, 2.1 and 2.0."""
    from xvla_platform.data.lerobot import LEROBOT

    return [LEROBOT]
