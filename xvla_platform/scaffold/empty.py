"""The template without a dataset: every entry that one arm's declaration can need, as a question."""

from xvla_platform.measure.guess import Guess
from xvla_platform.scaffold.draft import FRAME, Draft, nothing
from xvla_platform.specs.base import SCHEMA_VERSION

ASK = nothing("yours to say")


def empty_draft(name: str) -> Draft:
    """A declaration of one arm with two cameras, end-effector poses and a gripper, with a blank for each value."""
    pose = [
        {"name": "position", "kind": "position", "size": 3, "unit": ASK, "frame": FRAME},
        {
            "name": "rotation",
            "kind": "rotation",
            "size": _size(),
            "unit": nothing("for Euler angles and axis-angle only; other formats have no unit: delete the line"),
            "format": ASK,
            "frame": FRAME,
        },
        {"name": "gripper", "kind": "gripper", "size": 1, "unit": ASK, "open": ASK, "closed": ASK},
    ]
    reference = nothing("a relative position or rotation also needs `axes` (frame or tool)")
    always = Guess(value="absolute", confidence=1.0, evidence="a gripper command is always absolute")
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "description": ASK,
        "control_hz": ASK,
        "horizon_s": Guess(value=1.0, confidence=0.7, evidence="your choice: published recipes use 1 to 10 s"),
        "cameras": [
            {"name": "front", "role": "main", "mount": ASK, "resolution": ASK, "key": ASK},
            {"name": "wrist", "role": "auxiliary", "mount": "wrist", "resolution": ASK, "key": ASK},
        ],
        "proprio": {"key": ASK, "fields": pose},
        "action": {
            "key": ASK,
            "fields": [{**field, "reference": always if field["kind"] == "gripper" else reference} for field in pose],
        },
        "dataset": {
            "format": Guess(value="lerobot", confidence=0.7, evidence="or hdf5, rlds, xvla_meta"),
            "path": nothing("relative to this folder; or `repo` for a dataset on the Hub"),
            "held_out": 0.2,
        },
    }


def _size() -> Guess:
    return nothing("3 for Euler angles and axis-angle, 4 for a quaternion, 6 for a 6D rotation, 9 for a matrix")
