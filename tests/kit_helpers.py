"""The storages that the tests of the conformance kit share."""

from xvla_platform.platform.hookspecs import Storage
from xvla_platform.platform.storages_plugin import register_storages


def storage_named(name: str) -> Storage:
    return next(storage for storage in register_storages() if storage.name == name)
