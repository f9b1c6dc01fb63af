"""The numbers a draft is drawn from: every numeric column of a sample of episodes, and what its names say.

In: an open dataset, or the bare feature declarations of a robot. Out: a `Table` of columns, parted into those of the
state and those of the action; bookkeeping columns and what cannot be read are left out, with a note.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from xvla_platform.data.reader import DatasetReader, FeatureInfo, FloatArray
from xvla_platform.errors import XvlaError
from xvla_platform.measure.recording import sampled_episodes
from xvla_platform.scaffold.names import Segment, flat_names, read_names, side, words

SAMPLED_EPISODES = 60
LARGEST = 1e30  # beyond it lie infinities and fill values; NaN is not below it either
SHORTEST = 4  # frames; a shorter episode shows no motion
WIDEST = 256  # flattened simulator states and embeddings are wider
NUMERIC = re.compile(r"^(b?float|u?int|double|half|bool)")
BOOKKEEPING = re.compile(
    r"(^|_)(timestamp|timestamps|frame_index|episode_index|index|task_index|subtask_index|reward|rewards|discount|done"
    r"|dones|terminal|truncated|success|is_first|is_last|is_terminal|is_episode_successful|annotation|language|embedding"
    r"|instruction|intrinsics?|extrinsics?|calibration|valid|seed)(_|$)"
)
ACTION = re.compile(r"(^|_)(actions?|action_dict|commands?|controls?|targets?)(_|$)")
WHOLE_STATES = re.compile(r"(^|/)states$")  # robomimic's flattened simulator state


@dataclass(frozen=True, kw_only=True)
class Column:
    """One numeric column.

    Attributes:
        episodes: Per sampled episode its numbers [L, width]; empty where there is no recording yet.
        segments: What the names say it holds, or None.
        stated: Whether the dataset itself says so (a `modality.json`), which outranks any reading of names.
    """

    key: str
    width: int
    names: tuple[str, ...] | None
    episodes: tuple[FloatArray, ...]
    segments: tuple[Segment, ...] | None
    stated: bool = False

    @property
    def main(self) -> bool:
        """Whether it is the column in which a dataset keeps the whole vector."""
        return words(self.key).removeprefix("steps_") in ("action", "actions", "observation_state", "observations_qpos")


@dataclass(frozen=True, kw_only=True)
class Table:
    """All columns of the dataset, in its order; `indices` are the sampled episodes that every column was read of."""

    indices: tuple[int, ...] = ()
    state: tuple[Column, ...]
    action: tuple[Column, ...]
    timestamps: tuple[FloatArray, ...] = ()
    notes: tuple[str, ...] = field(default=())


def read_table(
    features: Mapping[str, FeatureInfo],
    reader: DatasetReader | None,
    stated: Mapping[str, Sequence[Segment]],
) -> Table:
    """The columns with their numbers; `stated` holds segments that the dataset declares by itself."""
    keys = [key for key, feature in features.items() if _is_column(key, feature)]
    chosen = sampled_episodes(len(reader.episodes), SAMPLED_EPISODES, 0) if reader is not None else []
    numbers, notes = _read(reader, keys, chosen)
    numbers, chosen = _finite(numbers, chosen, notes)
    columns = []
    for key in keys:
        width = _width(features[key])
        episodes = tuple(numbers.get(key, ()))
        if reader is not None and (not episodes or any(part.shape[1] != width for part in episodes)):
            continue
        segments = stated.get(key) or read_names(key, width, features[key].names)
        listed = flat_names(features[key].names, width)
        columns.append(
            Column(
                key=key,
                width=width,
                names=tuple(listed) if listed else None,
                episodes=episodes,
                segments=tuple(segments) if segments else None,
                stated=key in stated,
            )
        )
    columns = _two_robots(columns)
    times = tuple(reader.timestamps(index) for index in chosen) if reader is not None else ()
    return Table(
        indices=tuple(chosen),
        state=tuple(column for column in columns if not ACTION.search(words(column.key))),
        action=tuple(column for column in columns if ACTION.search(words(column.key))),
        timestamps=times,
        notes=tuple(notes),
    )


def _is_column(key: str, feature: FeatureInfo) -> bool:
    if feature.is_camera or not NUMERIC.match(feature.dtype) or WHOLE_STATES.search(key):
        return False
    text = words(key)
    if BOOKKEEPING.search(text) or text.startswith(("next_", "episode_metadata")):
        return False
    return 0 < _width(feature) <= WIDEST


def _width(feature: FeatureInfo) -> int:
    return int(np.prod(feature.shape)) if feature.shape else 1


def _read(
    reader: DatasetReader | None, keys: Sequence[str], chosen: Sequence[int]
) -> tuple[dict[str, list[FloatArray]], list[str]]:
    """Each readable column's numbers per episode; one unreadable column does not take the others along."""
    numbers: dict[str, list[FloatArray]] = {key: [] for key in keys}
    notes: list[str] = []
    if reader is None:
        return numbers, notes
    for index in chosen:
        try:
            columns = reader.columns(index, list(numbers))
        except XvlaError as error:
            columns = _one_by_one(reader, index, numbers, notes)
            if not columns:
                raise error  # nothing can be read: the dataset is at fault, not a column
        for key, values in columns.items():
            numbers[key].append(values.reshape(len(values), -1))
    return numbers, notes


def _one_by_one(
    reader: DatasetReader, index: int, numbers: dict[str, list[FloatArray]], notes: list[str]
) -> dict[str, FloatArray]:
    """The columns of an episode that can be read; those that cannot leave `numbers`, with a note."""
    columns: dict[str, FloatArray] = {}
    for key in list(numbers):
        try:
            columns |= reader.columns(index, [key])
        except XvlaError as error:
            notes.append(f"column '{key}' is left out: {error.message}")
            del numbers[key]
    return columns


def _finite(
    numbers: dict[str, list[FloatArray]], chosen: Sequence[int], notes: list[str]
) -> tuple[dict[str, list[FloatArray]], list[int]]:
    """Only columns and episodes whose numbers are all finite, and episodes long enough to show motion."""
    sound: dict[str, list[bool]] = {
        key: [bool((np.abs(values) < LARGEST).all()) and len(values) >= SHORTEST for values in episodes]
        for key, episodes in numbers.items()
    }
    for key, verdicts in sound.items():
        if verdicts and 2 * sum(verdicts) < len(verdicts):
            notes.append(
                f"column '{key}' is left out: in most episodes it is not finite, or shorter than {SHORTEST} frames"
            )
            del numbers[key]
    kept = [place for place in range(len(chosen)) if all(sound[key][place] for key in numbers)]
    if len(kept) < len(chosen) and numbers:
        notes.append(
            f"{len(chosen) - len(kept)} of {len(chosen)} sampled episodes are passed over: "
            f"not finite, or shorter than {SHORTEST} frames"
        )
    return {key: [episodes[place] for place in kept] for key, episodes in numbers.items()}, [chosen[i] for i in kept]


def _two_robots(columns: Sequence[Column]) -> list[Column]:
    """`robot0_*` and `robot1_*` side by side are the left and the right arm."""
    found = {match[1] for column in columns if (match := re.search(r"robot_?([01])_", column.key))}
    if found != {"0", "1"}:
        return list(columns)
    out = []
    for column in columns:
        match = re.search(r"robot_?([01])_", column.key)
        if match and column.segments and side(column.key) is None:
            arm = ("left", "right")[int(match[1])]
            column = replace(column, segments=tuple(replace(part, arm=arm) for part in column.segments))
        out.append(column)
    return out
