"""Statistics of a robot's state and action columns, per declared field, in recorded and in canonical units.

The recorded numbers are for people and reports; the canonical ones (m, rad, absolute targets) are what
`normalization` scales with. One pass over the columns, which are small enough to be held.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xvla_platform.data.canonical import canonical_unit
from xvla_platform.data.conventions import Conventions
from xvla_platform.data.normalization import FLOORS
from xvla_platform.data.reader import DatasetReader, FloatArray
from xvla_platform.data.vectors import column_name, read_vectors
from xvla_platform.errors import XvlaError
from xvla_platform.specs.base import SCHEMA_VERSION
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.specs.fields import ActionSpec, VectorSpec


def compute_statistics(
    reader: DatasetReader,
    spec: EmbodimentSpec,
    episodes: Sequence[int] | None = None,
    *,
    conventions: Conventions | None = None,
) -> dict[str, Any]:
    """Statistics over the given episodes (all by default), as plain lists that JSON can hold.

    Args:
        conventions: What the fields mean to the base they are meant for; without it, to one that takes joints.

    Returns:
        `{"proprio": {field: entry}, "action": {field: entry}, "canonical": {"proprio": …, "action": …}}` with
        entries of `mean, std, min, max, q01, q99` (one number per dim), `count` and `unit`. Ignored fields have
        none. Canonical entries are those of the position, joint and gripper fields that the base is told, in its
        frame, actions as absolute targets; their `floor` is the least scale a number is normalized with.
    """
    bound = conventions or Conventions(spec)
    chosen = list(range(len(reader.episodes))) if episodes is None else list(episodes)
    if not chosen:
        raise XvlaError("no episode to compute statistics of", file=reader.root)
    states, actions = [], []
    canonical: dict[str, dict[str, list[FloatArray]]] = {
        "proprio": {field.name: [] for field in bound.proprio},
        "action": {field.name: [] for field in bound.action},
    }
    for episode in chosen:
        vectors = read_vectors(reader, episode, (("proprio", spec.proprio), ("action", spec.action)))
        state, action = vectors["proprio"], vectors["action"]
        require_finite(state, spec.proprio, "proprio", episode, reader.root)
        require_finite(action, spec.action, "action", episode, reader.root)
        told = {"proprio": bound.state(state), "action": bound.targets(state, action).values}
        for which, found in told.items():
            for field_name, values in found.items():
                canonical[which][field_name].append(values)
        states.append(state)
        actions.append(action)
    recorded = {"proprio": np.concatenate(states), "action": np.concatenate(actions)}
    out: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "episodes": len(chosen), "canonical": {}}
    for name, vector, fields in (("proprio", spec.proprio, bound.proprio), ("action", spec.action, bound.action)):
        slices = vector.slices()
        out[name] = {
            field.name: _entry(recorded[name][:, slices[field.name]], field.unit, f"{name}.{field.name}")
            for field in vector.fields
            if field.kind != "ignored"
        }
        out["canonical"][name] = {
            field.name: {
                **_entry(np.concatenate(canonical[name][field.name]), canonical_unit(field), f"{name}.{field.name}"),
                "floor": FLOORS[canonical_unit(field)],
            }
            for field in fields
            if field.kind != "rotation"
        }
    out["frames"] = len(recorded["proprio"])
    return out


def require_finite(values: FloatArray, vector: VectorSpec | ActionSpec, name: str, episode: int, file: Path) -> None:
    """Refuse a vector [L, D] of one episode with NaN or infinity in a number that is used, naming the first."""
    lacking = ~np.isfinite(values)
    for field, slot in zip(vector.fields, vector.slices().values(), strict=True):
        if field.kind == "ignored":
            lacking[:, slot] = False
    rows, dims = np.nonzero(lacking)
    if len(rows):
        raise XvlaError(
            f"is not a finite number in episode {episode}, frame {rows[0]}",
            file=file,
            field=column_name(vector, name, int(dims[0])),
            found=str(values[rows[0], dims[0]]),
            hint=f"{len(rows)} such numbers in this episode; remove it or record it again",
        )


def _entry(values: FloatArray, unit: str | None, field: str) -> Mapping[str, Any]:
    low, high = np.quantile(values, [0.01, 0.99], axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        spread = values.std(axis=0)
    if not np.isfinite(spread).all():
        raise XvlaError(
            "holds numbers too large to be measured",
            field=field,
            found=f"{float(np.abs(values).max()):g}",
            hint="a declared scale, or the recording, is wrong by far",
        )
    return {
        "mean": values.mean(axis=0).tolist(),
        "std": spread.tolist(),
        "min": values.min(axis=0).tolist(),
        "max": values.max(axis=0).tolist(),
        "q01": low.tolist(),
        "q99": high.tolist(),
        "count": len(values),
        "unit": unit,
    }
