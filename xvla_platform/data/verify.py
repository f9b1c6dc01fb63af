"""Does a dataset hold what a plugin declares? Every fault is found here, before anything is computed.

In: an open dataset and a declaration. Out: nothing, or an `XvlaError` for the first fault that says how many
more of its kind of check there are.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from xvla_platform.data.reader import DatasetInfo, DatasetReader
from xvla_platform.data.statistics import require_finite
from xvla_platform.data.vectors import read_vectors
from xvla_platform.errors import XvlaError
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.specs.fields import FieldSpec

SAME_RATE = 1e-3  # relative: 29.97 against 30 is another rate, 15 against 15.000001 is not


def check_dataset(reader: DatasetReader, spec: EmbodimentSpec, *, plugin: Path | None = None) -> None:
    """Raise an `XvlaError` if the dataset cannot serve the declaration.

    Stages run from cheap to dear, each only if the ones before found nothing: the declaration against the
    metadata, the numbers, the videos. `plugin` is the declaring file, named in errors about the declaration.
    """
    for _, stage in fault_stages(reader, spec, plugin=plugin):
        faults = list(stage)
        if faults:
            raise _with_count(faults)


def fault_stages(
    reader: DatasetReader, spec: EmbodimentSpec, *, plugin: Path | None = None
) -> Iterator[tuple[str, Iterator[XvlaError]]]:
    """The three stages, `declaration`, `numbers` and `videos`, each with its faults, found as they are asked for."""
    yield "declaration", _declaration(reader, spec, plugin)
    yield "numbers", _numbers(reader, spec)
    yield "videos", _videos(reader, spec)


def _declaration(reader: DatasetReader, spec: EmbodimentSpec, plugin: Path | None) -> Iterator[XvlaError]:
    info, file = reader.info, plugin or reader.root
    if not reader.episodes:
        yield XvlaError("dataset has no episode", file=reader.root)
    cameras = sorted(key for key, feature in info.features.items() if feature.is_camera)
    if info.fps is not None and abs(info.fps - spec.control_hz) > SAME_RATE * spec.control_hz:
        yield XvlaError(
            f"the dataset is recorded at {info.fps:g} frames per second",
            file=file,
            field="control_hz",
            found=f"{spec.control_hz:g}",
            allowed=f"{info.fps:g}",
        )
    for number, camera in enumerate(spec.cameras):
        field = f"cameras[{number}].key"
        feature = info.features.get(camera.key)
        if feature is None:
            yield XvlaError("the dataset has no such key", file=file, field=field, found=camera.key, allowed=cameras)
        elif not feature.is_camera:
            yield XvlaError(
                f"is a column of {feature.dtype}, not a video or an image",
                file=file,
                field=field,
                found=camera.key,
                allowed=cameras,
            )
        elif feature.image_size != camera.resolution:
            yield XvlaError(
                "the dataset's frames have another size (height, width)",
                file=file,
                field=f"cameras[{number}].resolution",
                found=list(camera.resolution),
                allowed=str(list(feature.image_size)),
            )
    for name, vector in (("proprio", spec.proprio), ("action", spec.action)):
        for key, fields in vector.columns().items():
            yield from _column(info, file, name, key, fields)


def _column(info: DatasetInfo, file: Path, name: str, key: str, fields: tuple[FieldSpec, ...]) -> Iterator[XvlaError]:
    feature = info.features.get(key)
    if feature is None or feature.is_camera:
        yield XvlaError(
            "the dataset has no such numeric key" if feature is None else "is a camera, not a column",
            file=file,
            field=f"{name}.key",
            found=key,
            allowed=sorted(key for key, feature in info.features.items() if not feature.is_camera),
        )
        return
    size, taken = int(np.prod(feature.shape)) if feature.shape else 1, sum(field.size for field in fields)
    if size != taken:
        yield XvlaError(
            f"the declared fields take {taken} numbers, column '{key}' has {size}",
            file=file,
            field=f"{name}.fields",
            found=", ".join(f"{field.name} {field.size}" for field in fields),
            allowed=f"sizes that add up to {size}",
            hint="numbers that the robot does not use are a field of kind ignored",
        )


def _numbers(reader: DatasetReader, spec: EmbodimentSpec) -> Iterator[XvlaError]:
    vectors = (("proprio", spec.proprio), ("action", spec.action))
    for episode in reader.episodes:
        if not episode.instruction:
            yield XvlaError(
                f"episode {episode.index} has no instruction",
                file=reader.root,
                hint="the model reads the language command; give every episode a task, or declare dataset.instruction",
            )
        try:
            columns = read_vectors(reader, episode.index, vectors)
            for name, vector in vectors:
                require_finite(columns[name], vector, name, episode.index, reader.root)
            _require_regular(reader, episode.index, reader.info.fps or spec.control_hz)
        except XvlaError as error:
            yield error


def _require_regular(reader: DatasetReader, episode: int, fps: float) -> None:
    """Frames are addressed by `i / fps`, so a recording with gaps would pair commands with other images."""
    times = reader.timestamps(episode)
    if reader.info.fps is None and np.isnan(times).all():
        return  # the format records no time, so the declared rate is all there is
    drift = np.abs(times - times[0] - np.arange(len(times)) / fps)
    if not (drift < 0.5 / fps).all():
        worst = int(np.nanargmax(drift)) if np.isfinite(drift).any() else 0
        raise XvlaError(
            f"episode {episode} is not evenly timed at {fps:g} frames per second (frame {worst})",
            file=reader.root,
            field="timestamp",
            found=f"{times[worst]:.3f} s",
            allowed=f"{times[0] + worst / fps:.3f} s",
        )


def _videos(reader: DatasetReader, spec: EmbodimentSpec) -> Iterator[XvlaError]:
    for number, camera in enumerate(spec.cameras):
        for episode in reader.episodes:
            try:
                frames = reader.frames(episode.index, camera.key, [0, episode.length - 1])
            except XvlaError as error:
                yield error
                continue
            if frames.shape[1:3] != camera.resolution:
                yield XvlaError(
                    f"the frames of episode {episode.index} have another size (height, width)",
                    file=reader.root,
                    field=f"cameras[{number}].resolution",
                    found=list(camera.resolution),
                    allowed=str(list(frames.shape[1:3])),
                )


def _with_count(faults: list[XvlaError]) -> XvlaError:
    first = faults[0]
    if len(faults) == 1:
        return first
    places = list(dict.fromkeys(fault.field or fault.file or fault.message for fault in faults[1:]))
    more = f"{len(faults) - 1} more fault{'s' if len(faults) > 2 else ''}: {', '.join(places[:4])}"
    return XvlaError(
        first.message,
        file=first.file,
        field=first.field,
        found=first.found,
        allowed=first.allowed,
        hint=". ".join(part for part in (first.hint, more) if part),
    )
