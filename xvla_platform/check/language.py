"""XV41x: does every episode come with a command that says what to do?"""

from collections.abc import Iterator

from xvla_platform.check.common import counted
from xvla_platform.check.findings import CheckContext, Finding, Rule
from xvla_platform.measure.language import counts, missing, placeholders

RULES = (
    Rule(
        code="XV410",
        slug="instruction-missing",
        title="episodes have no instruction",
        why="The model reads the command together with the images. Without one it cannot be told what to do.",
        fix="Give every episode a task, or write one command for all: `dataset: {instruction: pick up the cube}`.",
    ),
    Rule(
        code="XV411",
        slug="instruction-all-equal",
        title="every episode has the same instruction",
        why="With one command for everything the model learns to ignore language, and will not follow another one.",
        fix="If the robot has one task, nothing; otherwise record what each episode shows.",
        severity="warning",
    ),
    Rule(
        code="XV412",
        slug="instruction-placeholder",
        title="instructions are left over from a template",
        why="A command like 'task_1' or 'test' says nothing that the images could be compared with.",
        fix="Write what each episode shows, in a few words, as you would tell a person.",
        severity="warning",
    ),
)


def instructions(context: CheckContext) -> Iterator[Finding]:
    """The commands of all episodes, not only of the sample."""
    declared = context.spec.dataset.instruction
    texts = [declared or episode.instruction for episode in context.reader.episodes]
    absent = missing(texts)
    if absent:
        indices = tuple(context.reader.episodes[place].index for place in absent)
        yield Finding(
            code="XV410",
            severity="error",
            field="dataset.instruction",
            measured=f"no instruction in {counted(indices, len(texts))}",
            numbers={"missing": len(absent)},
            episodes=indices,
        )
    for text, places in placeholders(texts).items():
        indices = tuple(context.reader.episodes[place].index for place in places)
        yield Finding(
            code="XV412",
            severity="error" if len(places) == len(texts) else "warning",
            field="dataset.instruction",
            measured=f"the instruction is '{text[:60]}' in {counted(indices, len(texts))}",
            episodes=indices,
        )
    found = counts(texts)
    context.facts["instructions"] = dict(list(found.items())[:20])
    if len(found) == 1 and len(texts) >= 5 and not absent:
        yield Finding(
            code="XV411",
            severity="info" if declared else "warning",
            field="dataset.instruction",
            measured=f"all {len(texts)} episodes say '{next(iter(found))[:60]}'",
        )


CHECKS = (instructions,)
