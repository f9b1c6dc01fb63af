"""The table of names: what datasets call things, what it means, how sure that is, and why.

In: nothing. Out: rules for single numbers (`ELEMENT_RULES`, with the order of a rotation's components in `ORDERS`), for
whole columns (`COLUMN_RULES`) and for single facts (`KEY_FACTS`). Patterns see words joined by `_` in lower case
(`names.words`). A convention that some recordings break has a confidence below 0.9, so that it is never taken for sure.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ElementRule:
    """A name of one number: `pattern` on the words joined by `_`, what it is, and which component of it."""

    pattern: str
    kind: str
    style: str = ""


# Rules are tried in order; the first that matches decides. `style` tells apart what must not be mixed in one segment.
ELEMENT_RULES: tuple[ElementRule, ...] = (
    ElementRule(r"(^|_)(pad|padding|unused|dummy|empty|reserved)(_|$)", "ignored", "padding"),
    ElementRule(
        r"(^|_)(vel|velocity|speed|torque|effort|force|current|acc|acceleration|temperature)(_|$)", "ignored", "motion"
    ),
    ElementRule(r"(^|_)(terminate|terminate_episode|done|is_terminal|mode|control_mode)$", "ignored", "flag"),
    # Joints first: `wrist_roll` and `forearm_roll` are motors, not angles of a tool.
    ElementRule(
        r"(^|_)(joint|joints|motor|shoulder|elbow|wrist|forearm|waist|torso|hip|neck)(_.*)?"
        r"(roll|pitch|yaw|pan|lift|flex|rotate|rotation|angle)(_\d+)?(_pos|_position|_rad|_deg)?$",
        "joint",
    ),
    ElementRule(r"(^|_)q_?(?P<part>[xyzw])$|(^|_)quat(ernion)?_(?P<part2>[xyzw])$", "rotation", "quaternion"),
    ElementRule(r"(^|_)(rot_?6d|r_?6d|rotation_6d|ortho_?6d)_(?P<part>[0-5])$", "rotation", "rot6d"),
    ElementRule(r"(^|_)(rotmat|rot_mat|rotation_matrix|matrix)_(?P<part>[0-8])$", "rotation", "matrix"),
    ElementRule(r"(^|_)(rot_?vec|axis_angle|aa)_(?P<part>[xyz012])$|(^|_)w(?P<part2>[xyz])$", "rotation", "axis_angle"),
    ElementRule(r"(^|_)euler(_angle)?_(?P<part>[xyz012])$", "rotation", "euler"),
    ElementRule(r"(^|_)(d|delta|d_|delta_)?(?P<part>roll|pitch|yaw)(_rad|_deg)?$", "rotation", "rpy"),
    ElementRule(
        r"(^|_)(d|delta_)?r(?P<part>[xyz])$|(^|_)(rot|rotation|ori|orientation)_(delta_)?(?P<part2>[xyzw])$",
        "rotation",
        "r",
    ),
    ElementRule(r"(^|_)(d|delta_)?(?P<part>[xyz])(_m|_mm|_cm)?$", "position", "xyz"),
    ElementRule(r"(^|_)(gripper|grip|jaw|claw|finger|fingers|clamp)(_|$)", "gripper"),
    ElementRule(r"(^|_)(joint|joints|j)_?\d+(_|$)", "joint"),
    ElementRule(r"(^|_)(shoulder|elbow|wrist|forearm|waist|torso)(_|$)", "joint"),
    ElementRule(r".+_pos(ition)?$", "joint"),  # LeRobot: `<motor>.pos`
)


@dataclass(frozen=True)
class ColumnRule:
    """A column whose own name says what it is; `layouts` maps a width to parts such as `p3 a3 g1`.

    Parts: p position; a axis-angle, e Euler angles, r rotation of unknown format, q quaternion, s 6D rotation,
    m matrix; g gripper; j joints; i ignored.
    """

    pattern: str
    layouts: dict[int, str] | str
    confidence: float
    why: str


# Tried in order on the key's words joined by `_`. A layout given as one letter takes every number of the column.
COLUMN_RULES: tuple[ColumnRule, ...] = (
    ColumnRule(
        r"(vel|velocity|velocities|torque|effort|force|current|acc|wrench|tactile|sin|cos|timestamp|temperature)"
        r"(_lin|_ang|_linear|_angular)?$",
        "i",
        0.95,
        "motion or force, not a pose",
    ),
    ColumnRule(
        r"(eef?|ee|tcp|end_effector|hand|effector|wrist_pose|arm)?_?(orientation|ori|rotation|rot|quat|quaternion)$",
        {3: "r3", 4: "q4", 6: "s6", 9: "m9"},
        0.9,
        "named as an orientation",
    ),
    ColumnRule(r"(axis_?angle|rot_?vec)$", {3: "a3"}, 0.95, "named axis-angle"),
    ColumnRule(r"(rot(ation)?_?6d|ortho_?6d)$", {6: "s6"}, 0.95, "named 6D rotation"),
    ColumnRule(r"(rpy|euler|euler_angles?)$", {3: "e3"}, 0.95, "named Euler angles"),
    ColumnRule(
        r"(gripper|grippers|gripper_(q?pos|position|positions|state|states|width|command|open|close|action|control)"
        r"|finger(s|_pos|_position)?|hand_gripper|effector_position)$",
        {1: "g1", 2: "g2"},
        0.95,
        "named as a gripper",
    ),
    ColumnRule(
        r"(joints?|arm_joints?|joint_(pos|qpos|position|positions|state|states|angle|angles|action)|arm_q?pos"
        r"|(left|right)_arm)$",
        "j",
        0.9,
        "named as joints",
    ),
    ColumnRule(
        r"(ee|eef|eef?_state|ee_states?|eef_states?|tcp_pose|ee_pose|eef_pose|end_effector_pose|end_pose|pose"
        r"|cartesian(_(pose|position|state))?|endpose|end_position)$",
        {
            6: "p3 r3",
            7: "p3 q4",
            8: "p3 q4 g1",
            9: "p3 s6",
            10: "p3 s6 g1",
            12: "p3 r3 | p3 r3",
            14: "p3 q4 | p3 q4",
            16: "p3 q4 g1 | p3 q4 g1",
            18: "p3 s6 | p3 s6",
            20: "p3 s6 g1 | p3 s6 g1",
        },
        0.8,
        "named as an end-effector pose",
    ),
    ColumnRule(
        r"(eef?|ee|tcp|end_effector|hand|effector)_(pos|position|xyz|translation)$",
        {3: "p3", 6: "p3 | p3"},
        0.95,
        "named as an end-effector position",
    ),
    ColumnRule(r"(^|_)(xyz|translation|position|pos)$", {3: "p3"}, 0.9, "named as a position"),
    ColumnRule(
        r"q_?pos$",
        {6: "j5 g1", 7: "j6 g1", 8: "j7 g1", 9: "j7 g2", 14: "j6 g1 | j6 g1", 16: "j7 g1 | j7 g1"},
        0.7,
        "named qpos: joints and then a gripper, as in ALOHA's recordings",
    ),
)

# What a whole key reveals beyond its rule: pattern, field of the declaration, value, confidence, reason.
KEY_FACTS: tuple[tuple[str, str, str, float, str], ...] = (
    (r"quat_wxyz|wxyz", "format", "quaternion_wxyz", 0.95, "the name says wxyz"),
    (r"quat_xyzw|xyzw", "format", "quaternion_xyzw", 0.95, "the name says xyzw"),
    (r"(^|_)robot_\d_eef_quat", "format", "quaternion_xyzw", 0.85, "robosuite's recordings have the scalar last"),
    (r"(^|_)ee_(ori|states)$", "format", "axis_angle", 0.8, "LIBERO's recordings give the orientation as axis-angle"),
    (r"axis_?angle|rot_?vec", "format", "axis_angle", 0.95, "named axis-angle"),
    (r"(^|_)(rpy|euler)", "format", "euler_xyz_extrinsic", 0.65, "named Euler angles; most mean fixed axes x, y, z"),
    (r"cartesian_position$", "format", "euler_xyz_extrinsic", 0.65, "DROID's recordings give Euler angles here"),
    (r"(^|_)(delta|relative|rel)(_|$)", "reference", "relative", 0.8, "the name says delta"),
    (r"(^|_)(abs|absolute|target)(_|$)", "reference", "absolute", 0.7, "the name says absolute"),
    (r"(^|_)(deg|degrees?)(_|$)", "unit", "deg", 0.9, "the name says degrees"),
    (r"(^|_)(rad|radians?)(_|$)", "unit", "rad", 0.9, "the name says radians"),
    (r"(^|_)mm(_|$)", "unit", "mm", 0.9, "the name says mm"),
    (r"(^|_)cm(_|$)", "unit", "cm", 0.9, "the name says cm"),
)

UNIT_KINDS = {"deg": ("rotation", "joint"), "rad": ("rotation", "joint"), "mm": ("position",), "cm": ("position",)}
LETTERS = {
    "p": ("position", None),
    "a": ("rotation", "axis_angle"),
    "e": ("rotation", "euler_xyz_extrinsic"),
    "r": ("rotation", None),
    "q": ("rotation", None),
    "s": ("rotation", None),
    "m": ("rotation", "matrix"),
    "g": ("gripper", None),
    "j": ("joint", None),
    "i": ("ignored", None),
}
LETTER_CONFIDENCE = {"a": 0.9, "e": 0.65, "m": 0.97}
SIDES = {"left": "left", "l": "left", "right": "right", "r": "right"}


# Style of a rotation's names: component order to format, with how sure that is.
ORDERS: dict[str, dict[str, tuple[str | None, float, str]]] = {
    "quaternion": {
        "x y z w": ("quaternion_xyzw", 0.95, ""),
        "w x y z": ("quaternion_wxyz", 0.95, ""),
    },
    "rot6d": {"0 1 2 3 4 5": (None, 0.0, "")},
    "matrix": {"0 1 2 3 4 5 6 7 8": ("matrix", 0.97, "")},
    "axis_angle": {"x y z": ("axis_angle", 0.9, ""), "0 1 2": ("axis_angle", 0.9, "")},
    "euler": {
        "x y z": ("euler_xyz_extrinsic", 0.65, "; most mean fixed axes x, y, z"),
        "0 1 2": ("euler_xyz_extrinsic", 0.6, "; most mean fixed axes x, y, z"),
    },
    "rpy": {
        "roll pitch yaw": ("euler_xyz_extrinsic", 0.7, "; most mean fixed axes x, y, z"),
        "yaw pitch roll": ("euler_zyx_intrinsic", 0.65, "; most mean z, then the turned y, then the turned x"),
    },
    "r": {
        "x y z": ("axis_angle", 0.5, "; axis-angle on some robots, Euler angles on others"),
        "x y z w": ("quaternion_xyzw", 0.95, ""),
        "w x y z": ("quaternion_wxyz", 0.95, ""),
    },
}
