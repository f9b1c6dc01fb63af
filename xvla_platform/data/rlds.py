"""Reader of RLDS datasets in place: a TFDS folder of TFRecord shards, one Example an episode, without TensorFlow.

Keys are those of the records (`steps/observation/image`, `steps/action`). Of the splits, `train` is read. The format
records neither a rate nor times. Opening reads headers only; an episode's checksum is verified when it is first read,
and then a frame costs one read of its own bytes.
"""

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xvla_platform.data.pictures import decode_picture, picture_size, stack_pictures
from xvla_platform.data.reader import (
    DatasetInfo,
    DatasetReader,
    Episode,
    FloatArray,
    Images,
    ReaderFactory,
    fingerprint_files,
    no_frames,
    require_episode,
    require_inside,
    wanted_frames,
)
from xvla_platform.data.recent import Recent
from xvla_platform.data.rlds_features import FEATURES, LANGUAGE, StepFeature, read_features, read_json
from xvla_platform.data.tf_example import FeatureSpan, bytes_spans, find_features, numbers
from xvla_platform.data.tfrecord import Span, Window, opened, record_spans, verify_record
from xvla_platform.errors import XvlaError

INFO = "dataset_info.json"
SPLIT = "train"
SHARD = re.compile(r"^(?P<name>.+)-(?P<split>[^-]+)\.tfrecord-(?P<number>\d{5,})-of-(?P<count>\d{5,})$")
INDEXED = 1024


@dataclass(frozen=True)
class Record:
    """Where an episode lies: its shard, its number and its bytes there."""

    file: Path
    number: int
    span: Span


class RldsReader:
    """A `DatasetReader` over one split of a TFDS folder."""

    def __init__(
        self, root: Path, features: Mapping[str, StepFeature], episodes: Sequence[tuple[Episode, Record]]
    ) -> None:
        self.root = root
        self.episodes = [episode for episode, _ in episodes]
        self._records = [record for _, record in episodes]
        self._features = dict(features)
        self._verified: set[int] = set()
        self._index: Recent[int, dict[str, FeatureSpan]] = Recent(INDEXED, self._find)
        self._places: Recent[tuple[int, str], list[Span]] = Recent(INDEXED, self._locate)
        self._fingerprint: str | None = None
        self.info = DatasetInfo(
            fps=None,
            features={key: feature.info for key, feature in features.items() if feature.info.dtype != "text"},
            episodes=len(episodes),
            frames=sum(episode.length for episode in self.episodes),
        )

    def columns(self, episode: int, keys: Sequence[str]) -> dict[str, FloatArray]:
        """Each key's numbers, float64 [L, D] in recorded units."""
        length = require_episode(self, episode).length
        return {key: self._column(episode, key, length) for key in keys}

    def timestamps(self, episode: int) -> FloatArray:
        """All NaN: RLDS records no time."""
        return np.full(require_episode(self, episode).length, np.nan)

    def frames(self, episode: int, key: str, indices: Sequence[int] | NDArray[Any]) -> Images:
        """Exactly the frames asked for, in the order asked, RGB uint8 [N, H, W, 3]."""
        wanted = wanted_frames(self, episode, key, indices)
        if not len(wanted):
            return no_frames(self.info.features[key])
        record = self._records[episode]
        with self._places.use((episode, key)) as found:
            places = found
        unique, order = np.unique(wanted, return_inverse=True)
        images = []
        with opened(record.file) as descriptor:
            window = Window(descriptor, record.span)
            for index in unique:
                place = places[int(index)]
                what = f"frame {int(index)} of episode {episode}"
                images.append(decode_picture(window.read(place.start, place.size), what, record.file, key))
        return stack_pictures(images, f"episode {episode}", record.file, key)[order]

    def fingerprint(self) -> str:
        """sha256 over names, sizes and contents of the split's files; computed once."""
        if self._fingerprint is None:
            files = dict.fromkeys(record.file for record in self._records)
            self._fingerprint = fingerprint_files(self.root, [self.root / FEATURES, self.root / INFO, *files])
        return self._fingerprint

    def _column(self, episode: int, key: str, length: int) -> FloatArray:
        feature = self._features.get(key)
        if feature is None or feature.info.is_camera or feature.info.dtype == "text":
            numeric = sorted(name for name, other in self.info.features.items() if not other.is_camera)
            raise XvlaError("is not a numeric key of the steps", file=self.root, field=key, allowed=numeric)
        record = self._records[episode]
        with self._index.use(episode) as found:
            index = found
        span = index.get(key, FeatureSpan("", Span(0, 0)))
        try:
            with opened(record.file) as descriptor:
                values = _values(Window(descriptor, record.span), span, feature)
        except ValueError as error:
            raise _damaged(record, error, key) from None
        if values.size != length * feature.width:
            raise XvlaError(
                f"episode {episode} has {values.size} numbers, {length} steps of {feature.width} are "
                f"{length * feature.width}",
                file=record.file,
                field=key,
            )
        return np.asarray(values, dtype=np.float64).reshape(length, feature.width)

    def _find(self, episode: int) -> dict[str, FeatureSpan]:
        """The record's features, verified against its checksum on the first visit."""
        record = self._records[episode]
        try:
            with opened(record.file) as descriptor:
                if episode not in self._verified:
                    verify_record(record.file, descriptor, record.span, record.number)
                    self._verified.add(episode)
                return find_features(Window(descriptor, record.span))
        except ValueError as error:
            raise _damaged(record, error) from None

    def _locate(self, place: tuple[int, str]) -> list[Span]:
        """Where each frame of one camera lies in its episode's record."""
        (episode, key), record = place, self._records[place[0]]
        with self._index.use(episode) as index:
            feature = index.get(key, FeatureSpan("", Span(0, 0)))
        try:
            with opened(record.file) as descriptor:
                spans = bytes_spans(Window(descriptor, record.span), feature) if feature.kind == "bytes" else []
        except ValueError as error:
            raise _damaged(record, error, key) from None
        if len(spans) != self.episodes[episode].length:
            raise XvlaError(
                f"episode {episode} has {len(spans)} frames and {self.episodes[episode].length} steps",
                file=record.file,
                field=key,
            )
        return spans


def open_rlds(folder: Path) -> DatasetReader:
    """Open the `train` split of a TFDS folder."""
    features = read_features(folder)
    shards = _shards(folder)
    records: list[Record] = []
    for shard, stated in shards:
        spans = record_spans(require_inside(folder, shard))
        if stated is not None and len(spans) != stated:
            raise XvlaError(f"holds {len(spans)} records, {INFO} says {stated}", file=shard)
        records += [Record(shard, number, span) for number, span in enumerate(spans)]
    if not records:
        raise XvlaError("dataset has no episode", file=folder, field=SPLIT)
    episodes = [(_episode(index, record, features), record) for index, record in enumerate(records)]
    reader = RldsReader(folder, features, episodes)
    sized = {key: _sized(reader, key, feature) for key, feature in features.items()}
    return reader if sized == dict(features) else RldsReader(folder, sized, episodes)


def detects_rlds(folder: Path) -> bool:
    """Whether the folder is one that TFDS wrote."""
    return (folder / FEATURES).is_file() and (folder / INFO).is_file()


RLDS = ReaderFactory(name="rlds", open=open_rlds, detects=detects_rlds)


def _shards(folder: Path) -> list[tuple[Path, int | None]]:
    """The split's files in order, each with the number of records that the metadata states, if it does."""
    path = folder / INFO
    raw = read_json(path)
    if raw.get("fileFormat", "tfrecord") not in ("tfrecord", ""):
        raise XvlaError("shards of this kind cannot be read", file=path, field="fileFormat", found=raw["fileFormat"],
                        allowed="tfrecord")  # fmt: skip
    found: dict[int, Path] = {}
    counts, splits = set(), set()
    for file in sorted(folder.glob("*.tfrecord-*")):
        match = SHARD.match(file.name)
        if match:
            splits.add(match["split"])
            if match["split"] == SPLIT:
                found[int(match["number"])] = file
                counts.add(int(match["count"]))
    if not found:
        raise XvlaError("has no shard of the split that is read", file=folder, field=SPLIT, allowed=sorted(splits))
    if len(counts) > 1 or sorted(found) != list(range(max(counts))):
        missing = sorted(set(range(max(counts))) - set(found))
        raise XvlaError(f"shards are missing or mixed: {len(found)} of {max(counts)} are there", file=folder,
                        field=SPLIT, found=f"without {missing[:8]}")  # fmt: skip
    stated = _stated_lengths(raw, path)
    if stated is not None and len(stated) != len(found):
        raise XvlaError(f"states {len(stated)} shards, {len(found)} are there", file=path, field="splits")
    return [(found[number], None if stated is None else stated[number]) for number in range(len(found))]


def _stated_lengths(raw: Mapping[str, Any], path: Path) -> list[int] | None:
    try:
        for split in raw.get("splits") or ():
            if split.get("name") == SPLIT and split.get("shardLengths"):
                return [int(length) for length in split["shardLengths"]]
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise XvlaError(f"dataset metadata is damaged: {error}", file=path, field="splits") from None
    return None


def _episode(index: int, record: Record, features: Mapping[str, StepFeature]) -> Episode:
    """Length and language of the episode in `record`, without touching its images."""
    try:
        with opened(record.file) as descriptor:
            window = Window(descriptor, record.span)
            found = find_features(window)
            length = _length(window, found, features)
            texts: list[str] = []
            for key in LANGUAGE:
                if key in features and key in found and features[key].info.dtype == "text":
                    spans = bytes_spans(window, found[key])
                    texts = [window.read(span.start, span.size).decode("utf-8").strip() for span in spans]
                    break
    except ValueError as error:
        raise _damaged(record, error) from None
    if length < 1:
        raise XvlaError(f"episode {index} has no step", file=record.file)
    said = [text for text in dict.fromkeys(texts) if text]
    if len(said) > 1:
        raise XvlaError(
            f"episode {index} changes its instruction half way, and one episode has one instruction here",
            file=record.file,
            found=said[:4],
        )
    return Episode(index=index, length=length, instruction=said[0] if said else "")


def _length(window: Window, found: Mapping[str, FeatureSpan], features: Mapping[str, StepFeature]) -> int:
    """Steps of the episode, from the cheapest of its features."""
    candidates = [key for key, feature in features.items() if key in found and feature.encoding == "none"]
    if not candidates:
        raise ValueError("it holds none of the declared features")
    key = min(candidates, key=lambda name: (features[name].info.is_camera, found[name].span.size))
    if found[key].kind == "bytes":
        return len(bytes_spans(window, found[key]))
    return len(numbers(window, found[key])) // features[key].width if found[key].kind else 0


def _values(window: Window, span: FeatureSpan, feature: StepFeature) -> NDArray[Any]:
    """A numeric feature's values over all steps, flat."""
    if feature.encoding == "none":
        if span.kind not in ("float", "int64"):
            raise ValueError("it has no numbers there")
        return numbers(window, span)
    dtype = np.dtype(feature.info.dtype).newbyteorder("<")
    size = feature.width * dtype.itemsize
    parts = []
    for place in bytes_spans(window, span):
        content = window.read(place.start, place.size)
        if feature.encoding == "zlib":
            try:
                content = zlib.decompressobj().decompress(content, size + 1)
            except zlib.error as error:
                raise ValueError(str(error)) from None
        if len(content) != size:
            raise ValueError(f"a step's tensor has {len(content)} bytes, declared are {size}")
        parts.append(np.frombuffer(content, dtype=dtype))
    return np.concatenate(parts) if parts else np.zeros(0)


def _sized(reader: RldsReader, key: str, feature: StepFeature) -> StepFeature:
    """A camera whose declaration leaves its size open gets that of its very first frame."""
    if not feature.info.is_camera or min(feature.info.shape) > 0:
        return feature
    record = reader._records[0]
    with reader._places.use((0, key)) as places, opened(record.file) as descriptor:
        content = Window(descriptor, record.span).read(places[0].start, places[0].size)
    height, width = picture_size(content, "frame 0 of episode 0", record.file, key)
    return replace(feature, info=replace(feature.info, shape=(height, width, 3)))


def _damaged(record: Record, error: ValueError, field: str | None = None) -> XvlaError:
    return XvlaError(f"record {record.number} is damaged: {error}", file=record.file, field=field)
