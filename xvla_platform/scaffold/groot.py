"""GR00T's `meta/modality.json`: named slices of a LeRobot dataset's state and action columns, and camera names.

In: the dataset's folder and features. Out: the columns' segments as the file declares them. Each slice's name is read
by the same table as column names; `rotation_type` and `absolute`, where they are given, are taken at their word.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from xvla_platform.data.reader import DatasetInfo
from xvla_platform.errors import XvlaError
from xvla_platform.measure.guess import Guess
from xvla_platform.platform.files import read_json
from xvla_platform.scaffold.names import Segment, by_key, side

MODALITY = Path("meta") / "modality.json"
DEFAULT_KEYS = {"state": "observation.state", "action": "action"}
ROTATIONS = {
    "axis_angle": "axis_angle",
    "rotvec": "axis_angle",
    "quaternion": None,  # GR00T does not say which component comes first
    "rotation_6d": None,
    "matrix": "matrix",
    "euler_angles_rpy": "euler_xyz_extrinsic",
    "euler_angles_ypr": "euler_zyx_intrinsic",
    "euler_angles_ryp": "euler_xzy_extrinsic",
}


def read_modality(folder: Path, info: DatasetInfo) -> tuple[dict[str, list[Segment]], list[str]]:
    """Column to its segments, and notes on what the file names but the dataset lacks."""
    path = folder / MODALITY
    raw = read_json(path)
    if not isinstance(raw, dict):
        raise XvlaError("expected a mapping", file=path, found=type(raw).__name__)
    slices: dict[str, list[tuple[int, int, str, dict[str, Any]]]] = {}
    notes: list[str] = []
    for vector, default in DEFAULT_KEYS.items():
        parts = raw.get(vector, {})
        if not isinstance(parts, dict):
            raise XvlaError("expected a mapping of slices", file=path, field=vector, found=type(parts).__name__)
        for name, entry in parts.items():
            start, stop = _bounds(entry, path, f"{vector}.{name}")
            key = str(entry.get("original_key") or default)
            feature = info.features.get(key)
            if feature is None or feature.is_camera:
                notes.append(f"modality.json names column '{key}' for {vector}.{name}, which the dataset lacks")
                continue
            width = feature.shape[0] if feature.shape else 1
            if stop > width:
                raise XvlaError(
                    f"the slice ends beyond column '{key}'",
                    file=path,
                    field=f"{vector}.{name}.end",
                    found=stop,
                    allowed=f"up to {width}",
                )
            slices.setdefault(key, []).append((start, stop, str(name), entry))
    out = {}
    for key, parts_of in slices.items():
        shape = info.features[key].shape
        out[key] = _cover(key, sorted(parts_of, key=lambda part: part[:2]), shape[0] if shape else 1, path)
    return out, notes


def _bounds(entry: Any, path: Path, field: str) -> tuple[int, int]:
    start, stop = (entry.get("start"), entry.get("end")) if isinstance(entry, dict) else (None, None)
    whole = isinstance(start, int) and isinstance(stop, int) and not isinstance(start, bool)
    if not whole or not 0 <= start < stop:  # type: ignore[operator]
        raise XvlaError("a slice has whole numbers `start` < `end`", file=path, field=field, found=entry)
    return start, stop  # type: ignore[return-value]


def _cover(key: str, parts: list[tuple[int, int, str, dict[str, Any]]], width: int, path: Path) -> list[Segment]:
    """The slices in order, with what none of them names ignored between."""
    out: list[Segment] = []
    position = 0
    for start, stop, name, entry in parts:
        if start < position:
            raise XvlaError(f"slices of column '{key}' overlap", file=path, field=name, found=f"{start}..{stop}")
        if start > position:
            out.append(_unnamed(position, start))
        out += [replace(part, start=part.start + start) for part in _slice(name, stop - start, entry)]
        position = stop
    if position < width:
        out.append(_unnamed(position, width))
    return out


def _slice(name: str, size: int, entry: Mapping[str, Any]) -> list[Segment]:
    evidence = f"modality.json names this slice '{name}'"
    rotation = entry.get("rotation_type")
    if isinstance(rotation, str):
        known = ROTATIONS.get(rotation)
        facts = {}
        if known is not None:
            facts["format"] = Guess(
                value=known, confidence=0.9 if rotation[:5] != "euler" else 0.75, evidence=f"rotation_type {rotation}"
            )
        segments = [
            Segment(
                start=0,
                size=size,
                kind="rotation",
                arm=side(name),
                facts=facts,
                confidence=0.95,
                evidence=f"{evidence}, rotation_type {rotation}",
            )
        ]
    else:
        segments = by_key(name, size) or [
            Segment(start=0, size=size, kind=None, arm=side(name), confidence=0.0, evidence=evidence)
        ]
        segments = [replace(part, evidence=evidence) for part in segments]
    if entry.get("absolute") is False:
        told = Guess(value="relative", confidence=0.9, evidence=f"modality.json: {name} is not absolute")
        segments = [
            replace(part, facts={**part.facts, "reference": told})
            if part.kind in ("position", "rotation", "joint")
            else part
            for part in segments
        ]
    return segments


def _unnamed(start: int, stop: int) -> Segment:
    return Segment(
        start=start, size=stop - start, kind="ignored", confidence=0.8, evidence="modality.json names no such slice"
    )
