"""The artifact: a folder of data files sealed by `manifest.json`, which holds the hash of every other file.

In: a folder. Out: the sealed or verified `Manifest`, or an error that names the first file that is not as
listed. Only formats that cannot carry code are accepted, whoever wrote the folder.
"""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from xvla_platform.errors import XvlaError
from xvla_platform.platform.files import read_json, sha256_file, write_json
from xvla_platform.platform.records import RECORD_NAME
from xvla_platform.specs.base import load_model
from xvla_platform.specs.records import EmbodimentRecord, Manifest

MANIFEST_NAME = "manifest.json"
# A robot's kinematics is XML, which is read under limits and without what could open another file.
DATA_SUFFIXES = (".safetensors", ".json", ".jsonl", ".yaml", ".md", ".png", ".xml")


def load_manifest(folder: Path) -> Manifest:
    """The folder's `manifest.json`."""
    return load_model(Manifest, folder / MANIFEST_NAME)


def load_record(folder: Path) -> EmbodimentRecord:
    """The contract inside the artifact: its `embodiment.yaml`."""
    return load_model(EmbodimentRecord, folder / RECORD_NAME)


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Write `manifest.json` with the hashes of all files that lie in `folder` now; nothing may change after."""
    if manifest.tuning == "full":
        _point_to_own_weights(folder / "adapter_config.json")
    names = [name for name in _names(folder) if name != MANIFEST_NAME]
    check_names(names, folder)
    sealed = manifest.model_copy(update={"files": {name: sha256_file(folder / name) for name in names}})
    write_json(folder / MANIFEST_NAME, sealed.model_dump(mode="json"))
    return sealed


def verify(folder: Path) -> Manifest:
    """Check that the folder holds exactly the listed files, each with its hash, and a contract that fits."""
    manifest = load_manifest(folder)
    names = [name for name in _names(folder) if name != MANIFEST_NAME]
    check_names(names, folder)
    check_names(manifest.files, folder)
    for name in names:
        if name not in manifest.files:
            raise XvlaError("holds a file that its manifest does not list", file=folder, found=name)
    for name, expected in sorted(manifest.files.items()):
        if name not in names:
            raise XvlaError("lacks a file that its manifest lists", file=folder, found=name)
        actual = sha256_file(folder / name)
        if actual != expected:
            raise XvlaError(
                "was altered: its sha256 is not the one in the manifest",
                file=folder / name,
                found=actual,
                allowed=expected,
            )
    _check_contract(folder, manifest)
    return manifest


def check_names(names: Iterable[str], where: Path | str) -> None:
    """Refuse names that leave the folder, are hidden, or whose format could carry code."""
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
            raise XvlaError("holds a path that leaves its folder", file=where, found=name)
        if any(part.startswith(".") for part in path.parts):
            raise XvlaError("holds a hidden file", file=where, found=name)
        if path.suffix not in DATA_SUFFIXES:
            raise XvlaError("holds a file that is not plain data", file=where, found=name, allowed=DATA_SUFFIXES)


def _point_to_own_weights(path: Path) -> None:
    """After full tuning the adapter belongs on the folder's own weights; over the untuned base it acts wrongly."""
    if path.is_file():
        write_json(path, {**read_json(path), "base_model_name_or_path": ".", "revision": None})


def _names(folder: Path) -> list[str]:
    names = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise XvlaError("holds a symbolic link", file=folder, found=path.name)
        if path.is_file():
            names.append(path.relative_to(folder).as_posix())
        elif not path.is_dir():
            raise XvlaError("holds something that is not a file", file=folder, found=path.name)
    return names


def _check_contract(folder: Path, manifest: Manifest) -> None:
    record = load_record(folder)
    pairs = {
        "embodiment": (record.spec.name, manifest.embodiment),
        "base.fingerprint": (record.base.fingerprint, manifest.base.fingerprint),
        "slot": (record.slot, manifest.slot),
    }
    for field, (in_record, in_manifest) in pairs.items():
        if in_record != in_manifest:
            raise XvlaError(
                f"{RECORD_NAME} and {MANIFEST_NAME} disagree",
                file=folder,
                field=field,
                found=f"{in_record} and {in_manifest}",
            )
