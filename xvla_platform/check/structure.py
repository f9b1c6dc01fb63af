"""XV0xx: does the dataset hold what is declared, and do its own names agree with the declaration?"""

import re
from collections.abc import Iterator

from xvla_platform.check.common import columns, counted, names_of
from xvla_platform.check.findings import CheckContext, Finding, Rule
from xvla_platform.data.verify import fault_stages
from xvla_platform.errors import XvlaError
from xvla_platform.measure.names import kind_of
from xvla_platform.specs.embodiment import EmbodimentSpec

RULES = (
    Rule(
        code="XV001",
        slug="no-episodes",
        title="the dataset has no episode",
        why="There is nothing to learn from.",
        fix="Point `dataset.path` (or `repo`) at a recording with at least three demonstrations.",
    ),
    Rule(
        code="XV002",
        slug="control-rate",
        title="the declared rate is not the dataset's",
        why="Chunks cover `horizon_s` seconds. With a wrong rate every chunk is stretched, and the robot moves too "
        "fast or too slowly by the same factor.",
        fix="Write the rate of the recording: `control_hz: 20`.",
    ),
    Rule(
        code="XV003",
        slug="camera-key",
        title="a camera's key is missing, or is no camera",
        why="The model would not see this view at all.",
        fix="Write the key as the dataset has it: `cameras: [{key: observation.images.front, ...}]`.",
    ),
    Rule(
        code="XV004",
        slug="camera-resolution",
        title="frames have another size than declared",
        why="A declared size that is wrong usually means that two cameras were mixed up.",
        fix="Write `resolution: [height, width]` of the recorded frames.",
    ),
    Rule(
        code="XV005",
        slug="column-key",
        title="a numeric column is missing",
        why="State or action would have to be invented.",
        fix="Write the column's key as the dataset has it: `proprio: {key: observation.state, ...}`.",
    ),
    Rule(
        code="XV006",
        slug="column-size",
        title="the declared fields do not fill the column",
        why="One number too many or too few shifts the meaning of every number after it.",
        fix="Declare every number; what the robot does not use is `{name: unused, kind: ignored, size: 1}`.",
    ),
    Rule(
        code="XV007",
        slug="not-finite",
        title="there are values that are no numbers",
        why="One NaN turns the loss, and with it every weight, into NaN.",
        fix="Remove the episodes, or record them again; find where the recorder wrote NaN or inf.",
    ),
    Rule(
        code="XV008",
        slug="unreadable-episode",
        title="an episode cannot be read",
        why="Training would stop when it reaches the episode.",
        fix="Remove the episode from the dataset, or copy the dataset again.",
    ),
    Rule(
        code="XV009",
        slug="unreadable-video",
        title="a video cannot be read",
        why="Training would stop when it reaches the frames.",
        fix="Remove the episode from the dataset, or copy its videos again.",
    ),
    Rule(
        code="XV010",
        slug="names-disagree",
        title="the dataset names these numbers otherwise",
        why="Fields are cut from the column in the declared order. If a field begins one number early, it reads its "
        "neighbour's value as its own.",
        fix="Order the fields, and choose their sizes, as the column's names say.",
    ),
    Rule(
        code="XV011",
        slug="cannot-be-applied",
        title="a part of the declaration cannot be applied to the recording",
        why="What the robot is told and what it answers would have no meaning; the data is not at fault.",
        fix="Correct the named field of plugin.yaml as the message says.",
    ),
)
BY_FIELD = (
    (re.compile(r"^control_hz$"), "XV002"),
    (re.compile(r"^cameras\[\d+\]\.key$"), "XV003"),
    (re.compile(r"^cameras\[\d+\]\.resolution$"), "XV004"),
    (re.compile(r"^(proprio|action)\.key$"), "XV005"),
    (re.compile(r"^(proprio|action)\.fields$"), "XV006"),
)
BY_STAGE = {"declaration": "XV001", "numbers": "XV008", "videos": "XV009"}
SHOWN = 20


def dataset_faults(context: CheckContext) -> Iterator[Finding]:
    """Every structural fault; a stage runs only if the ones before it found nothing it depends on."""
    if context.verified:
        return
    plugin = None if context.plugin_folder is None else context.plugin_folder / "plugin.yaml"
    broken = False
    for stage, faults in fault_stages(context.reader, context.spec, plugin=plugin):
        if broken:
            return
        count = 0
        for fault in faults:
            code = code_of(stage, fault)
            # Language and time stamps have checks of their own, which say more.
            if code is None:
                continue
            broken = broken or code not in ("XV002", "XV004")
            count += 1
            if count > SHOWN:
                return
            yield Finding(
                code=code,
                severity="error",
                field=fault.field,
                measured=_line(fault),
                numbers={"found": str(fault.found), "allowed": fault.allowed},
                fix=_fix(fault),
            )


def code_of(stage: str, fault: XvlaError) -> str | None:
    """The code of a structural fault; None for what other checks report."""
    if fault.field == "timestamp" or "no instruction" in fault.message:
        return None
    return _by_field(fault) or BY_STAGE[stage]


def code_of_error(error: XvlaError) -> str:
    """The code of what stops a check: a field of the declaration, or else the data."""
    declared = re.match(r"\w+", error.field or "")
    return _by_field(error) or ("XV011" if declared and declared[0] in EmbodimentSpec.model_fields else "XV008")


def _by_field(fault: XvlaError) -> str | None:
    for pattern, code in BY_FIELD:
        if fault.field is not None and pattern.match(fault.field):
            return code
    return "XV007" if "finite number" in fault.message else None


def disagreeing_names(context: CheckContext) -> Iterator[Finding]:
    """A field of positions over numbers called `qx` or `gripper`, and the like."""
    for column in columns(context, "position", "rotation", "gripper"):
        names = names_of(context, column)
        kinds = [kind_of(name) for name in names or ()]
        wrong = [
            (name, kind) for name, kind in zip(names or (), kinds, strict=True) if kind not in (None, column.field.kind)
        ]
        # `rx ry rz` of a pose and `x y z` of a rotation vector are both called by axes.
        wrong = [(name, kind) for name, kind in wrong if not (column.field.kind == "rotation" and kind == "position")]
        if wrong:
            called = ", ".join(f"{name} (a {kind})" for name, kind in wrong)
            yield Finding(
                code="XV010",
                severity="error",
                field=column.place,
                measured=f"the field is declared a {column.field.kind}, its numbers are called {called}",
                numbers={"names": list(names or ())},
            )


def unreadable(context: CheckContext) -> Iterator[Finding]:
    """Episodes of the sample that could not be read, where the structure was not looked at as a whole."""
    if not context.verified or not context.recording.faults:
        return
    total = len(context.recording.episodes) + len(context.recording.faults)
    for fault in context.recording.faults[:SHOWN]:
        yield Finding(
            code="XV008",
            severity="error",
            field=fault.field,
            measured=f"{_line(fault)} ({counted((), total)})",
        )


def _line(fault: XvlaError) -> str:
    text = fault.message
    if fault.found is not None:
        text += f"; found {fault.found}"
    return text + (f"; {fault.file}" if fault.file and not str(fault.file).endswith("plugin.yaml") else "")


def _fix(fault: XvlaError) -> str | None:
    if fault.field and fault.allowed and "numbers" not in fault.message:
        return f"{fault.field}: one of {fault.allowed}" if "," in fault.allowed else f"{fault.field}: {fault.allowed}"
    return fault.hint


CHECKS = (dataset_faults, disagreeing_names, unreadable)
