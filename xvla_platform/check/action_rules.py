"""The words of XV21x: what can be wrong with an action, why it matters, and what to change."""

from xvla_platform.check.findings import Rule

RULES = (
    Rule(
        code="XV210",
        slug="action-reference",
        title="the action is relative where it is declared absolute, or the reverse",
        why="A step of a centimetre read as a place sends the hand to the robot's base; a place read as a step sends "
        "it out of reach.",
        fix="Write `reference: absolute`, `relative` (to the state of the same frame) or `relative_to_first`; a "
        "relative position or rotation also needs `axes: frame` or `axes: tool`.",
    ),
    Rule(
        code="XV211",
        slug="action-axes",
        title="the relative action is in other axes",
        why="A step forward of the hand is not a step forward of the base. In the wrong axes the robot moves in "
        "directions that depend on how it holds its hand.",
        fix="Write `axes: frame` (the base's) or `axes: tool` (the hand's).",
    ),
    Rule(
        code="XV212",
        slug="action-scale",
        title="the action is scaled against the state",
        why="Actions between -1 and 1 stand for steps of the controller's own size. Read as metres they move the arm "
        "many times too far.",
        fix="Write what a recorded 1 stands for: `unit: m` with `scale: 0.05`.",
    ),
    Rule(
        code="XV213",
        slug="action-equals-state",
        title="the action is the state of the same frame",
        why="The model learns to answer with what it was given, and the robot stands still.",
        fix="Write `timing: reached` under `action`, so that later states serve as targets, or record the commands.",
    ),
    Rule(
        code="XV214",
        slug="action-timing",
        title="the action is early or late against the state",
        why="The command of a frame should come shortly before the motion it causes. A column shifted by some frames "
        "teaches the robot to act late, and hand and gripper fall out of step.",
        fix="Shift the column in the recorder; if the action column holds reached states, write `timing: reached`.",
    ),
    Rule(
        code="XV215",
        slug="action-unrelated",
        title="the state does not follow the action",
        why="If what was commanded does not explain what happened, the column is not this arm's action, or is in "
        "another frame or order than the state.",
        fix="Check `key`, the order of the fields, `arm`, `frame` and `reference`.",
        severity="warning",
    ),
    Rule(
        code="XV216",
        slug="action-frame",
        title="action and state are in differently turned frames",
        why="A target given in another frame than the state lies somewhere else for the model, which works in one "
        "frame.",
        fix="Record both in one frame; axes that are swapped or negated in one of the columns are the usual reason.",
    ),
    Rule(
        code="XV217",
        slug="arms-swapped",
        title="left action and right state belong together",
        why="The model would move the left arm for what the right one sees.",
        fix="Exchange `arm: left` and `arm: right` in one of the vectors.",
    ),
)
