"""Which dims of the model vector each declared field takes; a robot that does not fit a space is refused."""

from dataclasses import dataclass
from typing import Literal

from xvla_platform.errors import XvlaError
from xvla_platform.specs.action_space import ActionSpace
from xvla_platform.specs.fields import FieldSpec

Vector = Literal["proprio", "action"]
Fields = tuple[FieldSpec, ...]
AUTO_HINT = "use a base with `action_mode: auto`, which takes any fields in declared order"
POSE_HINT = (
    "declare the robot's `kinematics`, and joints become poses; or use a base with `action_mode: joint` or `auto`"
)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A field and its slice of the model vector."""

    field: FieldSpec
    model: slice


def model_size(field: FieldSpec) -> int:
    """Numbers a field takes in the model vector: every rotation becomes six."""
    return 6 if field.kind == "rotation" else field.size


def vector_size(fields: Fields) -> int:
    """Numbers that `fields` take in the model vector of the `auto` space."""
    return sum(model_size(field) for field in fields)


def place(proprio: Fields, action: Fields, space: ActionSpace, vector: Vector) -> tuple[Placement, ...]:
    """Where the fields of `proprio` or `action` go in `space`, in their order."""
    fields = proprio if vector == "proprio" else action
    if space.find("any", "left") is not None:
        starts = _in_order(fields, space, vector)
    else:
        _check_arms(proprio, action, space)
        starts = [_start(field, fields, space, vector) for field in fields]
    return tuple(
        Placement(field=field, model=slice(start, start + model_size(field)))
        for field, start in zip(fields, starts, strict=True)
    )


def _in_order(fields: Fields, space: ActionSpace, vector: Vector) -> list[int]:
    room = space.real_dim if vector == "action" else space.dim
    total = vector_size(fields)
    if total > room:
        raise XvlaError(
            f"fields take {total} numbers of the model vector, action space {space.name} has {room}",
            field=vector,
            found=", ".join(f"{field.name} {model_size(field)}" for field in fields),
        )
    starts, start = [], 0
    for field in fields:
        starts.append(start)
        start += model_size(field)
    return starts


def _start(field: FieldSpec, fields: Fields, space: ActionSpace, vector: Vector) -> int:
    slot = space.find(field.kind, field.arm)
    if slot is None:
        raise _no_place(field, space, vector)
    same = [other for other in fields if other.kind == field.kind and other.arm == field.arm]
    total = vector_size(tuple(same))
    if total != slot.size:
        raise XvlaError(
            f"action space {space.name} takes {slot.size} numbers of {field.kind} for the {field.arm} arm",
            field=f"{vector}.{field.name}",
            found=total,
            allowed=str(slot.size),
            hint=AUTO_HINT,
        )
    return slot.start + vector_size(tuple(same[: same.index(field)]))


def _check_arms(proprio: Fields, action: Fields, space: ActionSpace) -> None:
    """Each arm that is driven has all the fields of its half of the space, except that a gripper may lack.

    The model reads proprio in the same layout, so a field that is missing there would be read as zeros; only
    the fields that the space hides from the model may be missing.
    """
    arms = sorted({field.arm for field in action})
    stray = [field for field in proprio if field.arm not in arms]
    if stray:
        raise XvlaError(
            f"belongs to the {stray[0].arm} arm, which no action field drives",
            field=f"proprio.{stray[0].name}",
            allowed=arms,
        )
    # Said before what a pose lacks, which would only follow from it.
    for vector, fields in (("proprio", proprio), ("action", action)):
        for field in fields:
            if _holds_poses_only(space, field):
                raise _no_place(field, space, vector)
    for arm in arms:
        for slot in space.fields:
            if slot.arm != arm:
                continue
            has_action = any(f.kind == slot.kind and f.arm == arm for f in action)
            has_state = any(f.kind == slot.kind and f.arm == arm for f in proprio)
            optional = slot.kind == "gripper" and space.find("joint", arm) is None
            if not has_action and not optional:
                raise _lacks("action", slot.kind, arm, space)
            if has_action and not has_state and not slot.hidden:
                raise _lacks("proprio", slot.kind, arm, space)


def _holds_poses_only(space: ActionSpace, field: FieldSpec) -> bool:
    """Whether `field` holds joints of an arm that the space knows by its pose."""
    return (
        field.kind == "joint"
        and space.find("joint", field.arm) is None
        and space.find("position", field.arm) is not None
    )


def _no_place(field: FieldSpec, space: ActionSpace, vector: str) -> XvlaError:
    return XvlaError(
        f"action space {space.name} has no place for a {field.kind}",
        field=f"{vector}.{field.name}",
        allowed=", ".join(sorted({slot.kind for slot in space.fields})),
        hint=POSE_HINT if _holds_poses_only(space, field) else AUTO_HINT,
    )


def _lacks(vector: Vector, kind: str, arm: str, space: ActionSpace) -> XvlaError:
    return XvlaError(f"action space {space.name} needs a {kind} field for the {arm} arm", field=vector, hint=AUTO_HINT)
