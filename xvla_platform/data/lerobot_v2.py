"""LeRobot 2.0 and 2.1: one parquet and one video file an episode, listed in `meta/episodes.jsonl`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xvla_platform.data.lerobot import EpisodeSource
from xvla_platform.data.lerobot_info import fill_template, to_episode
from xvla_platform.data.reader import DatasetInfo
from xvla_platform.errors import XvlaError


def sources_v2(folder: Path, raw: Mapping[str, Any], info: DatasetInfo) -> list[EpisodeSource]:
    """Where each episode lies, in order of index; every video starts at its episode's first frame."""
    table = folder / "meta" / "episodes.jsonl"
    try:
        lines = [line for line in table.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        raise XvlaError("episodes table is missing", file=table) from None
    except (OSError, UnicodeDecodeError) as error:
        raise XvlaError(f"episodes table is damaged: {error}", file=table) from None
    videos = [key for key, feature in info.features.items() if feature.dtype == "video"]
    sources = []
    for number, line in enumerate(lines, start=1):
        try:
            episode = to_episode(json.loads(line))
            chunk = episode.index // int(raw.get("chunks_size", 1000))
        except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
            raise XvlaError(f"line {number} is damaged: {type(error).__name__} {error}", file=table) from None
        place = {"episode_chunk": chunk, "episode_index": episode.index}
        sources.append(
            EpisodeSource(
                episode=episode,
                data=fill_template(folder, raw, "data_path", **place),
                videos={key: (fill_template(folder, raw, "video_path", video_key=key, **place), 0.0) for key in videos},
            )
        )
    return sorted(sources, key=lambda source: source.episode.index)
