"""XV51x and XV52x: where this robot's numbers lie against the base's rows, and against a trained adaptation's data.

Everything is compared in canonical numbers (metres, radians, closedness; absolute targets), as the model is told
them. The tables go to `facts["drift"]`, for the report and for `--json`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from xvla_platform.check.findings import CheckContext, Finding, Rule
from xvla_platform.data.conventions import Conventions
from xvla_platform.data.ranges import canonical_values
from xvla_platform.data.reader import FloatArray
from xvla_platform.data.statistics import FLOORS, canonical_unit
from xvla_platform.errors import XvlaError
from xvla_platform.measure.drift import Reference, comparison, known_factor, overlap, times
from xvla_platform.platform.artifact import load_record
from xvla_platform.platform.domains import domain_table
from xvla_platform.platform.files import read_json
from xvla_platform.specs.domain import DomainConvention, FieldRange
from xvla_platform.specs.fields import FieldSpec

RULES = (
    Rule(
        code="XV511",
        slug="scale-against-base",
        title="the numbers move over a range of another scale than any of the base's rows",
        why="A robot arm's hand moves over decimetres. Where it seems to move over a thousand times more or less than "
        "every robot the base knows, the unit or scale is declared wrongly, and every target is off by that factor.",
        fix="Declare the unit in which the numbers are recorded, as in `unit: mm`, or their `scale`.",
    ),
    Rule(
        code="XV512",
        slug="far-from-nearest-row",
        title="most of the hand's places are new to the nearest row of the base",
        why="A new slot starts as a copy of a row. The less of the workspace that row has seen, the more there is to "
        "learn from this robot's own demonstrations.",
        fix="Nothing has to be done. If the two frames differ by a known pose, `frame_changes: [{arm: left, base: "
        "{position_m: [x, y, z]}}]` brings them together.",
        severity="info",
    ),
    Rule(
        code="XV521",
        slug="scale-against-trained",
        title="the numbers are of another scale than those the adaptation was trained with",
        why="The adaptation answers in the scale it has learnt. Data or a robot in another unit is misread by that "
        "factor, without any error.",
        fix="Declare the unit in which these numbers are recorded, as in `unit: mm`.",
    ),
    Rule(
        code="XV522",
        slug="shifted-from-trained",
        title="the numbers lie elsewhere than those the adaptation was trained with",
        why="A robot that was moved, calibrated anew or given another tool shows the adaptation places it never saw.",
        fix="If the frame has changed, declare it: `frame_changes: [{arm: left, base: {position_m: [x, y, z]}}]`. If "
        "the task has, adapt again with both datasets.",
        severity="warning",
    ),
    Rule(
        code="XV523",
        slug="outside-trained-range",
        title="many frames lie outside the range the adaptation was trained with",
        why="Outside its range an adaptation extrapolates, and a normalized field leaves the scale the model expects.",
        fix="Adapt again with this data, or with both datasets.",
        severity="warning",
    ),
    Rule(
        code="XV524",
        slug="fields-differ-from-trained",
        title="the fields are not those of the trained adaptation",
        why="The adaptation's numbers mean what its own declaration says; another field in the same place is misread.",
        fix="Give fields the kind, size and arm of the adaptation's embodiment.yaml, or adapt under another name.",
    ),
    Rule(
        code="XV525",
        slug="timing-differs-from-trained",
        title="rate, horizon or cameras are not those of the trained adaptation",
        why="A chunk spans the horizon that was trained, and views have their places. Another rate plays it at another "
        "speed; another order of cameras shows the model the wrong picture.",
        fix="Write the values of the adaptation's embodiment.yaml, or adapt again.",
        severity="warning",
    ),
)
SCALE_SEEN = 5.0  # times more or less than every row
SURE_FACTOR = 50.0  # below that a small task, or a large robot, is possible
SAME_FACTOR = 1.3
SHIFT = 3.0  # training standard deviations
OUTSIDE = 0.25  # share of frames
NEW_TO_ROW = 0.5  # share of frames

Values = dict[str, dict[str, tuple[FieldSpec, FloatArray]]]


def against_base(context: CheckContext) -> Iterator[Finding]:
    """Each field against the rows of the base whose ranges are known, and a table against the nearest of them."""
    if context.base is None:
        return
    rows = [row for row in domain_table(context.base).domains.values() if row.proprio or row.action]
    values = _values(context)
    if not rows or not values:
        return
    for vector, fields in values.items():
        for name, (field, numbers) in fields.items():
            yield from _scale_against_rows(f"{vector}.{name}", field, numbers, vector, rows)
    row, how = _chosen_row(context, values, rows)
    table = []
    for vector, fields in values.items():
        for name, (field, numbers) in fields.items():
            found = _match(row, vector, field)
            if found is None:
                continue
            reference = _of_range(found)
            table += comparison(f"{vector}.{name}", numbers, reference)
            new = float(reference.outside(numbers).any(axis=1).mean())
            if field.kind == "position" and vector == "proprio" and new > NEW_TO_ROW:
                yield Finding(
                    code="XV512",
                    severity="info",
                    field=f"{vector}.{name}",
                    measured=f"{new:.0%} of the frames lie outside the workspace of row {row.domain_id} ({row.name}), "
                    f"the {how} one",
                    numbers={"share": new, "domain_id": row.domain_id},
                )
    facts = {"base": context.base.id, "domain_id": row.domain_id, "name": row.name, "how": how, "rows": table}
    context.facts.setdefault("drift", {})["base"] = facts


def against_trained(context: CheckContext) -> Iterator[Finding]:
    """Each field against the statistics that an adaptation was trained with, and its contract against this one."""
    if context.against is None:
        return
    yield from _contract(context)
    trained = _trained(context.against / "stats.json")
    table = []
    for vector, fields in _values(context).items():
        for name, (field, numbers) in fields.items():
            reference = trained.get((vector, name))
            if reference is None or len(reference.mean) != numbers.shape[1]:
                continue
            place = f"{vector}.{name}"
            table += comparison(place, numbers, reference)
            scale = list(_scale_against(place, numbers, reference))
            yield from scale or _shift(place, numbers, reference, field.kind)
    folder = context.against
    label = f"{folder.parent.name}/{folder.name}"
    context.facts.setdefault("drift", {})["trained"] = {"adaptation": label, "rows": table}


def _values(context: CheckContext) -> Values:
    conventions = Conventions(context.spec, context.space, context.plugin_folder)
    whole = [
        (episode.proprio, episode.action)
        for episode in context.recording.episodes
        if np.isfinite(episode.proprio).all() and np.isfinite(episode.action).all()
    ]
    return canonical_values(conventions, whole) if whole else {}


def _of_range(found: FieldRange) -> Reference:
    return Reference(
        mean=np.array(found.mean),
        std=np.array(found.std),
        q01=np.array(found.q01),
        q99=np.array(found.q99),
        floor=FLOORS[found.unit],
    )


def _trained(path: Path) -> dict[tuple[str, str], Reference]:
    """(vector, field) to the canonical entry of an adaptation's statistics."""
    out = {}
    try:
        canonical = read_json(path)["canonical"]
        for vector in ("proprio", "action"):
            for name, entry in canonical[vector].items():
                mean, std, q01, q99 = (np.array(entry[part], dtype=float) for part in ("mean", "std", "q01", "q99"))
                floor = FLOORS[entry["unit"]]
                out[vector, name] = Reference(mean=mean, std=std, q01=q01, q99=q99, floor=floor)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise XvlaError(f"is not what an adaptation was trained with: {error!r}", file=path) from None
    return out


def _match(row: DomainConvention, vector: str, field: FieldSpec) -> FieldRange | None:
    """The row's range of the same quantity of the same arm; names are the robot's own and say nothing."""
    ranges: Mapping[str, FieldRange] = getattr(row, vector)
    same = [
        found
        for found in ranges.values()
        if (found.kind, found.arm, found.unit, len(found.mean))
        == (field.kind, field.arm, canonical_unit(field), field.size)
    ]
    return same[0] if len(same) == 1 else None


def _scale_against_rows(
    place: str, field: FieldSpec, numbers: FloatArray, vector: str, rows: list[DomainConvention]
) -> Iterator[Finding]:
    known = [found for row in rows if (found := _match(row, vector, field)) is not None]
    if field.kind == "gripper" or not known:
        return
    spread = np.quantile(numbers, 0.99, axis=0) - np.quantile(numbers, 0.01, axis=0)
    if np.median(spread) < 1e-9:
        return  # what stands still has no scale
    ratios = [float(np.median(spread / _of_range(found).spread())) for found in known]
    low, high = min(ratios), max(ratios)
    if low <= SCALE_SEEN and high >= 1 / SCALE_SEEN:
        return
    ratio = float(np.exp(np.mean(np.log(np.maximum(ratios, 1e-12)))))
    yield Finding(
        code="XV511",
        severity="error" if max(low, 1 / max(high, 1e-12)) > SURE_FACTOR else "warning",
        field=place,
        measured=f"moves over {times(ratio)} the range of the base's rows{known_factor(ratio, 2.5)}",
        numbers={"ratio": ratio, "least": low, "most": high},
    )


def _chosen_row(context: CheckContext, values: Values, rows: list[DomainConvention]) -> tuple[DomainConvention, str]:
    """The row that the slot is copied from, if one is declared, else the one whose workspace overlaps most."""
    declared = [row for row in rows if row.domain_id == context.spec.prompt.copy_from]
    if declared:
        return declared[0], "declared"

    def closeness(row: DomainConvention) -> tuple[float, float]:
        overlaps, distances = [0.0], [0.0]
        for vector, fields in values.items():
            for field, numbers in fields.values():
                found = _match(row, vector, field)
                if found is not None and field.kind != "gripper":
                    reference = _of_range(found)
                    overlaps.append(float(overlap(numbers, reference).mean()))
                    distances.append(float(np.abs(numbers.mean(axis=0) - reference.mean).mean()))
        return float(np.mean(overlaps)), -float(np.mean(distances))

    return max(rows, key=closeness), "nearest"


def _contract(context: CheckContext) -> Iterator[Finding]:
    assert context.against is not None
    trained = load_record(context.against).spec
    for vector in ("proprio", "action"):
        ours, theirs = (
            {field.name: (field.kind, field.size, field.arm) for field in getattr(spec, vector).fields}
            for spec in (context.spec, trained)
        )
        for name in sorted({*ours, *theirs}):
            if ours.get(name) != theirs.get(name):
                yield Finding(
                    code="XV524",
                    severity="error",
                    field=f"{vector}.{name}",
                    measured=f"here {_described(ours.get(name))}, in the adaptation {_described(theirs.get(name))}",
                )
    pairs = {
        "control_hz": (context.spec.control_hz, trained.control_hz),
        "horizon_s": (context.spec.horizon_s, trained.horizon_s),
        "cameras": tuple(", ".join(c.name for c in spec.ordered_cameras) for spec in (context.spec, trained)),
    }
    for field, (here, there) in pairs.items():
        if here != there:
            yield Finding(
                code="XV525",
                severity="warning",
                field=field,
                measured=f"here {_plain(here)}, in the adaptation {_plain(there)}",
            )


def _scale_against(place: str, numbers: FloatArray, trained: Reference) -> Iterator[Finding]:
    """A spread that differs by one of the factors between units, the same in every number of the field."""
    moves = trained.std > trained.floor
    if not moves.any():
        return
    ratios = numbers.std(axis=0)[moves] / trained.std[moves]
    ratio = float(np.exp(np.log(np.maximum(ratios, 1e-12)).mean()))
    if max(ratio, 1 / ratio) < SCALE_SEEN or not known_factor(ratio, SAME_FACTOR):
        return
    yield Finding(
        code="XV521",
        severity="error",
        field=place,
        measured=f"moves over {times(ratio)} the range of training{known_factor(ratio, SAME_FACTOR)}",
        numbers={"ratio": ratio},
    )


def _shift(place: str, numbers: FloatArray, trained: Reference, kind: str) -> Iterator[Finding]:
    shift = np.abs(numbers.mean(axis=0) - trained.mean) / np.maximum(trained.std, trained.floor)
    worst = int(shift.argmax())
    if shift[worst] > SHIFT:
        yield Finding(
            code="XV522",
            severity="warning",
            field=f"{place}[{worst}]",
            measured=f"the mean is {numbers[:, worst].mean():.3g}, {shift[worst]:.1f} training standard deviations "
            f"from the {trained.mean[worst]:.3g} of training",
            numbers={"shift": shift, "mean": numbers.mean(axis=0)},
            # A frame moves poses; it is no advice about joints and grippers.
            fix=None if kind in ("position", "rotation") else "adapt again with this data, or with both datasets",
        )
    share = trained.outside(numbers).mean(axis=0)
    worst = int(share.argmax())
    if share[worst] > OUTSIDE:
        yield Finding(
            code="XV523",
            severity="warning",
            field=f"{place}[{worst}]",
            measured=f"{share[worst]:.0%} of the frames lie outside the range of training, {trained.q01[worst]:.3g} to "
            f"{trained.q99[worst]:.3g} and a quarter of that on either side",
            numbers={"share": share},
        )


def _described(field: tuple[str, int, str] | None) -> str:
    return "none" if field is None else f"a {field[0]} of size {field[1]}, {field[2]} arm"


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


CHECKS = (against_base, against_trained)
