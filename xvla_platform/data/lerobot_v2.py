"""LeRobot 2.0 and 2.1: one parquet and one video file an episode, listed in `meta/episodes.jsonl`.

In GR00T's flavour of it the language lies in a column: `annotation.human.task_description` holds indices into
`meta/tasks.jsonl`. It is used where the episodes table does not name exactly one task.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xvla_platform.data.lerobot import EpisodeSource
from xvla_platform.data.lerobot_info import fill_template, to_episode
from xvla_platform.data.parquet import ParquetColumns
from xvla_platform.data.reader import DatasetInfo
from xvla_platform.errors import XvlaError

LANGUAGE = ("task_description", "coarse_action")


def sources_v2(folder: Path, raw: Mapping[str, Any], info: DatasetInfo) -> list[EpisodeSource]:
    """Where each episode lies, in order of index; every video starts at its episode's first frame."""
    table = folder / "meta" / "episodes.jsonl"
    videos = [key for key, feature in info.features.items() if feature.dtype == "video"]
    annotation = _annotation(info)
    sentences: dict[int, str] | None = None
    sources = []
    for number, row in _lines(table):
        try:
            index = int(row["episode_index"])
            chunk = index // int(raw.get("chunks_size", 1000))
        except (ValueError, KeyError, TypeError, ZeroDivisionError, OverflowError) as error:
            raise XvlaError(f"line {number} is damaged: {type(error).__name__} {error}", file=table) from None
        place = {"episode_chunk": chunk, "episode_index": index}
        data = fill_template(folder, raw, "data_path", **place)
        tasks = row.get("tasks")
        if annotation is not None and not (isinstance(tasks, list) and len(set(map(str, tasks))) == 1):
            sentences = _sentences(folder) if sentences is None else sentences
            row["tasks"] = [_annotated(data, annotation, sentences, index)]
        try:
            episode = to_episode(row)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise XvlaError(f"line {number} is damaged: {type(error).__name__} {error}", file=table) from None
        sources.append(
            EpisodeSource(
                episode=episode,
                data=data,
                videos={key: (fill_template(folder, raw, "video_path", video_key=key, **place), 0.0) for key in videos},
            )
        )
    return sorted(sources, key=lambda source: source.episode.index)


def _lines(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a JSON-lines table with their line numbers."""
    try:
        text = table.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise XvlaError(f"{table.stem} table is missing", file=table) from None
    except (OSError, UnicodeDecodeError) as error:
        raise XvlaError(f"{table.stem} table is damaged: {error}", file=table) from None
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise XvlaError(f"line {number} is damaged: {type(error).__name__} {error}", file=table) from None
        if not isinstance(row, dict):
            raise XvlaError(f"line {number} is damaged: expected a mapping", file=table)
        yield number, row


def _annotation(info: DatasetInfo) -> str | None:
    """The column with the language, if the dataset is GR00T's: the plainest name first."""
    found = [key for key in info.features if key.startswith("annotation.") and key.endswith(LANGUAGE)]
    return min(found, key=lambda key: (key.count("."), key), default=None)


def _sentences(folder: Path) -> dict[int, str]:
    table = folder / "meta" / "tasks.jsonl"
    sentences = {}
    for number, row in _lines(table):
        try:
            sentences[int(row["task_index"])] = str(row["task"])
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise XvlaError(f"line {number} is damaged: {type(error).__name__} {error}", file=table) from None
    return sentences


def _annotated(data: Path, key: str, sentences: Mapping[int, str], episode: int) -> str:
    """The one sentence that the annotation gives the whole episode."""
    indices = {int(value) for value in ParquetColumns(data).matrix(key)[:, 0] if value == value}
    unknown = sorted(indices - set(sentences))
    if unknown or len(indices) > 1:
        raise XvlaError(
            f"episode {episode} has a task that `meta/tasks.jsonl` does not list"
            if unknown
            else f"episode {episode} changes its task half way, and one episode has one instruction here",
            file=data,
            field=key,
            found=sorted(indices),
        )
    return sentences[indices.pop()] if indices else ""
