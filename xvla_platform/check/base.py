"""XV50x: does the robot suit the base it is to be adapted from?"""

from collections.abc import Iterator

import numpy as np

from xvla_platform.check.common import canonical, columns
from xvla_platform.check.findings import CheckContext, Finding, Rule
from xvla_platform.data.placement import place
from xvla_platform.errors import XvlaError
from xvla_platform.platform.domains import DomainTable, domain_table

RULES = (
    Rule(
        code="XV501",
        slug="joint-space-on-pose-base",
        title="a robot in joint space over a base of end-effector poses",
        why="The base's knowledge is where a hand goes in space. Joint angles have no place in its action vector, and "
        "a vector of joints that is forced into it is new to the base in every number: users report training that "
        "converges and a robot that does the same whatever it sees.",
        fix="Declare the robot's kinematics, and its joints become poses: `kinematics: [{arm: left, file: robot.urdf, "
        "joints: [joint1, …], tip: tool0}]`. Otherwise choose a base with `action_mode: joint` or `auto`.",
    ),
    Rule(
        code="XV502",
        slug="too-many-cameras",
        title="more cameras than the base has views",
        why="The base was trained with a fixed number of views; a further one has no place.",
        fix="Leave out the least useful camera: the main view, one more fixed one and a wrist camera are usual.",
    ),
    Rule(
        code="XV503",
        slug="no-place-for-fields",
        title="the fields do not fit the base's action space",
        why="Every number of proprio and action needs its place in the base's vector.",
        fix="Declare what is not needed `kind: ignored`, give the second arm `arm: right`, or use a base with "
        "`action_mode: auto`.",
    ),
    Rule(
        code="XV504",
        slug="horizon-far-from-base",
        title="the horizon is far from those of the base",
        why="One chunk has a fixed number of steps. Over a much longer or shorter time its steps have another length "
        "than the base has learnt.",
        fix="Write a horizon near the base's: `horizon_s: 4.0`.",
        severity="warning",
    ),
    Rule(
        code="XV505",
        slug="rate-far-from-base",
        title="the recording is too slow for the base's steps",
        why="Between recorded frames targets are interpolated. With fewer than one frame to several steps the chunk is "
        "made of straight lines.",
        fix="Record faster, or write a longer horizon: `horizon_s: 5.0`.",
        severity="warning",
    ),
    Rule(
        code="XV506",
        slug="outside-base-workspace",
        title="the hand works where no robot of the base did",
        why="Positions enter the model as metres. Where none of the base's robots ever was, its knowledge of the "
        "relation between images and places is extrapolated.",
        fix="Bring the robot's frame to the base's with `frame_changes: [{arm: left, base: {position_m: [x, y, z]}}]`.",
        severity="warning",
    ),
    Rule(
        code="XV507",
        slug="no-slot-to-copy",
        title="the slot to start from is not in the base",
        why="A slot that starts as a copy needs an existing one; the adaptation would be refused.",
        fix="Write the id of one of the base's slots, which `xvla domains` lists: `prompt: {init: copy, copy_from: "
        "0}`.",
    ),
)
HORIZON_FACTOR = 2.5
FRAMES_PER_STEP = 0.35
OUTSIDE_M = 0.3
REACH_M = 5.0


def fit(context: CheckContext) -> Iterator[Finding]:
    """Cameras, slot to start from, kinds of fields and sizes against the base's views, slots and vector."""
    base, space, spec = context.base, context.space, context.spec
    if base is None or space is None:
        return
    if len(spec.cameras) > base.num_views:
        yield Finding(
            code="XV502",
            severity="error",
            field="cameras",
            measured=f"{len(spec.cameras)} cameras, the base {base.id} has {base.num_views} views",
            numbers={"cameras": len(spec.cameras), "views": base.num_views},
        )
    copied = spec.prompt.copy_from
    if copied is not None and copied >= base.num_domains:
        yield Finding(
            code="XV507",
            severity="error",
            field="prompt.copy_from",
            measured=f"slot {copied} is to be copied, the base {base.id} has slots 0 to {base.num_domains - 1}",
            numbers={"copy_from": copied, "slots": base.num_domains},
            fix=f"prompt.copy_from: 0 to {base.num_domains - 1}",
        )
    with_kinematics = {kinematics.arm for kinematics in spec.kinematics}
    takes_any = space.find("any", "left") is not None
    joints = False
    for column in columns(context, "joint"):
        arm = column.field.arm
        if takes_any or arm in with_kinematics or space.find("joint", arm) is not None:
            continue
        joints = True
        yield Finding(
            code="XV501",
            severity="error",
            field=column.place,
            measured=f"{column.field.size} joints of the {arm} arm; the action space {space.name} of {base.id} has "
            f"places for {', '.join(sorted({field.kind for field in space.fields}))}, and none for joints",
            numbers={"joints": column.field.size, "space": space.name},
            fix=f"kinematics: [{{arm: {arm}, file: robot.urdf, joints: [...], tip: ...}}]",
        )
    if not joints and not spec.kinematics:
        yield from _places(context)


def domains(context: CheckContext) -> Iterator[Finding]:
    """Horizon, rate and workspace against the rows of the base of which these are known."""
    base, spec = context.base, context.spec
    if base is None:
        return
    table = domain_table(base)
    horizons = sorted({domain.horizon_s for domain in table.domains.values() if domain.horizon_s is not None})
    if horizons and not horizons[0] / HORIZON_FACTOR <= spec.horizon_s <= horizons[-1] * HORIZON_FACTOR:
        nearest = horizons[0] if spec.horizon_s < horizons[0] else horizons[-1]
        yield Finding(
            code="XV504",
            severity="warning",
            field="horizon_s",
            measured=f"declared {spec.horizon_s:g} s, the base's rows cover {horizons[0]:g} to {horizons[-1]:g} s",
            numbers={"horizons": horizons},
            fix=f"horizon_s: {nearest:g}",
        )
    steps = base.num_actions / spec.horizon_s
    if spec.control_hz < FRAMES_PER_STEP * steps and spec.control_hz * spec.horizon_s < 10:
        yield Finding(
            code="XV505",
            severity="warning",
            field="control_hz",
            measured=f"{spec.control_hz * spec.horizon_s:.3g} recorded frames for a chunk of {base.num_actions} steps",
            numbers={"frames": spec.control_hz * spec.horizon_s, "steps": base.num_actions},
        )
    yield from _workspace(context, table)


def _places(context: CheckContext) -> Iterator[Finding]:
    space, spec = context.space, context.spec
    assert space is not None
    used = {
        vector: tuple(field for field in getattr(spec, vector).fields if field.kind != "ignored")
        for vector in ("proprio", "action")
    }
    for vector in ("proprio", "action"):
        try:
            if vector == "proprio":
                place(used["proprio"], used["action"], space, "proprio")
            else:
                place(used["proprio"], used["action"], space, "action")
        except XvlaError as error:
            yield Finding(
                code="XV503",
                severity="error",
                field=error.field or vector,
                measured=error.message + (f"; found {error.found}" if error.found is not None else ""),
                fix=error.hint,
            )


def _workspace(context: CheckContext, table: DomainTable) -> Iterator[Finding]:
    changed = {change.arm for change in context.spec.frame_changes}
    for column in columns(context, "position", vectors=("proprio",)):
        ranges = [
            found
            for domain in table.domains.values()
            for found in (*domain.proprio.values(), *domain.action.values())
            if found.kind == "position" and found.arm == column.field.arm and len(found.q01) == 3
        ]
        values = [part[np.isfinite(part).all(axis=1)] for part in canonical(column) or []]
        # A frame change moves the robot's numbers before the model sees them; the drift report compares those.
        if not ranges or not sum(map(len, values)) or column.field.arm in changed:
            continue
        low, high = (np.percentile(np.concatenate(values), q, axis=0) for q in (1, 99))
        bottom, top = np.min([one.q01 for one in ranges], axis=0), np.max([one.q99 for one in ranges], axis=0)
        beyond = np.maximum(np.maximum(high - top, bottom - low), 0.0)
        # What no arm reaches is in another unit, which other checks say.
        if beyond.max() <= OUTSIDE_M or np.abs([low, high]).max() > REACH_M:
            continue
        dims = np.flatnonzero(beyond > OUTSIDE_M)
        told = "; ".join(
            f"{'xyz'[dim]} from {low[dim]:.2f} to {high[dim]:.2f} m, there {bottom[dim]:.2f} to {top[dim]:.2f}"
            for dim in dims
        )
        shift = np.where(beyond > OUTSIDE_M, (bottom + top - low - high) / 2, 0.0)
        yield Finding(
            code="XV506",
            severity="warning",
            field=column.place,
            measured=f"the hand works outside the range of all {len(ranges)} rows of which it is known: {told}",
            numbers={"low": low, "high": high, "bottom": bottom, "top": top},
            fix=f"frame_changes: [{{arm: {column.field.arm}, base: {{position_m: "
            f"{[round(float(value), 2) for value in shift]}}}}}] would bring it to their middle",
        )


CHECKS = (fit, domains)
