"""The built-in dataset formats, registered through the same hook as anyone else's."""

from xvla_platform.data.reader import ReaderFactory
from xvla_platform.hooks import hookimpl


@hookimpl
def register_dataset_readers() -> list[ReaderFactory]:
    """LeRobot 3.0, 2.1 and 2.0; HDF5 of ALOHA/ACT and robomimic/LIBERO; RLDS; the public X-VLA code's meta files."""
    from xvla_platform.data.hdf5 import HDF5
    from xvla_platform.data.lerobot import LEROBOT
    from xvla_platform.data.rlds import RLDS
    from xvla_platform.data.xvla_meta import XVLA_META

    return [LEROBOT, HDF5, RLDS, XVLA_META]
