"""The built-in storages, registered through the same hook as anyone else's."""

from xvla_platform.hooks import hookimpl
from xvla_platform.platform.hookspecs import Storage


@hookimpl
def register_storages() -> list[Storage]:
    """The Hub (`user/name`), and a shared folder (`dir:/some/share`)."""
    return [
        Storage(
            name="hub",
            push="xvla_platform.platform.storage_hub:push",
            pull="xvla_platform.platform.storage_hub:pull",
            summary="the Hugging Face Hub",
        ),
        Storage(
            name="dir",
            push="xvla_platform.platform.storage_dir:push",
            pull="xvla_platform.platform.storage_dir:pull",
            summary="a shared folder",
        ),
    ]
