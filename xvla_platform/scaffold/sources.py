"""What `--from` names: a dataset on disk, a dataset on the Hub, or an installed LeRobot hardware package.

In: the words of the command line and the registered readers. Out: a `Source`: the features, a reader where there is a
recording, what the dataset itself declares about its columns, and the `dataset:` entry that will find it again.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xvla_platform.data.reader import DatasetReader, FeatureInfo, ReaderFactory, locate_dataset
from xvla_platform.errors import XvlaError
from xvla_platform.platform.files import real_path
from xvla_platform.scaffold.groot import MODALITY, read_modality
from xvla_platform.scaffold.hardware import PREFIX, hardware_features, with_units
from xvla_platform.scaffold.names import Segment, read_names
from xvla_platform.specs.embodiment import DatasetSpec

REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a draft comes from.

    Attributes:
        label: How the source is called in the files that are written; never a machine's path.
        format: Name of the dataset reader.
        place: The local dataset, if there is one.
        repo, revision: Its place on the Hub, if it came from there.
        stated: Column to the segments that the dataset itself declares.
        robot_type: The name under which the robot was recorded.
    """

    label: str
    format: str
    features: Mapping[str, FeatureInfo]
    reader: DatasetReader | None = None
    place: Path | None = None
    repo: str | None = None
    revision: str | None = None
    stated: Mapping[str, list[Segment]] = field(default_factory=dict)
    robot_type: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def fps(self) -> float | None:
        return self.reader.info.fps if self.reader is not None else None


def open_source(text: str, revision: str | None, readers: Iterable[ReaderFactory]) -> Source:
    """The source that `text` names: an existing path, a `lerobot_robot_*` package, or a Hub dataset id."""
    path = Path(text).expanduser()
    real_path(path, "--from")
    # A folder of that name is taken for the package's sources only if it is no dataset.
    factories = list(readers)
    if path.exists():
        factory = _detect(path, factories)
        if factory is None and path.is_dir() and path.name.replace("-", "_").startswith(PREFIX):
            return _hardware(text, revision)
        if revision is not None:
            raise XvlaError("--revision belongs to a dataset on the Hub", field="--revision", found=revision)
        return _local(path.resolve(), factory, factories)
    if text.replace("-", "_").startswith(PREFIX):
        return _hardware(text, revision)
    # Beside a folder that is there, a missing name is a slip of the pen, not a Hub id.
    if REPO_ID.fullmatch(text) and not path.parent.is_dir():
        return _hub(text, revision, factories)
    raise XvlaError(
        "no such dataset",
        field="--from",
        found=text,
        allowed="a dataset folder or file, a Hub dataset id (org/name), or an installed lerobot_robot_* package",
    )


def _detect(place: Path, factories: Iterable[ReaderFactory]) -> ReaderFactory | None:
    """The reader that knows the place; the built-in LeRobot layout wins over looser ones."""
    for factory in sorted(factories, key=lambda factory: factory.name != "lerobot"):
        if factory.detects(place):
            return factory
    return None


def _local(place: Path, factory: ReaderFactory | None, factories: list[ReaderFactory]) -> Source:
    if factory is None and place.name in ("modality.json", "info.json") and place.parent.name == "meta":
        return _local(place.parent.parent, _detect(place.parent.parent, factories), factories)
    if factory is None:
        raise XvlaError(
            "is not a dataset of any known format",
            file=place,
            allowed=sorted(factory.name for factory in factories),
        )
    reader = factory.open(place)
    stated, notes = read_modality(place, reader.info) if (place / MODALITY).is_file() else ({}, ())
    return Source(
        label=f"{factory.name} dataset {place.name}",
        format=factory.name,
        features=reader.info.features,
        reader=reader,
        place=place,
        stated=stated,
        robot_type=reader.info.robot_type,
        notes=tuple(notes),
    )


def _hub(repo: str, revision: str | None, factories: list[ReaderFactory]) -> Source:
    place = locate_dataset(DatasetSpec(repo=repo, revision=revision), Path())
    source = _local(place, _detect(place, factories), factories)
    # The cache keeps each commit in a folder of its name: the declaration pins the very commit that was read.
    commit = place.name if re.fullmatch(r"[0-9a-f]{40}", place.name) else revision
    values: dict[str, Any] = {**source.__dict__, "label": f"dataset {repo}", "repo": repo, "revision": commit}
    return Source(**{**values, "place": None})


def _hardware(text: str, revision: str | None) -> Source:
    if revision is not None:
        raise XvlaError("--revision belongs to a dataset on the Hub", field="--revision", found=revision)
    found = hardware_features(text)
    stated = {
        key: with_units(read_names(key, feature.shape[0], feature.names) or [], feature.names, found.units)
        for key, feature in found.features.items()
        if not feature.is_camera
    }
    return Source(
        label=f"package {found.package}",
        format="lerobot",
        features=found.features,
        stated={key: segments for key, segments in stated.items() if segments},
        robot_type=found.robot_type,
        notes=found.notes,
    )
