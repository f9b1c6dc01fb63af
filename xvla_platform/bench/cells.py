"""What is measured: every cell, and which two are compared."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from xvla_platform.bench.sizes import Size

Group = Literal["steps", "inference", "pipeline", "end-to-end"]
GROUPS: tuple[Group, ...] = ("steps", "inference", "pipeline", "end-to-end")
Side = Literal["ours", "public", "lerobot"]
SAMPLES, FRAMES, STEPS = 16, 1000, 1000  # of the end-to-end comparison: a thousand steps of 16 on a thousand frames
PIPELINE_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One measurement in one process.

    Attributes:
        side: Whose work it is; `public` runs on the peer's classes where there is a peer, else on ours.
        options: What the process is told beside what all are told.
        flops: Key of the operations count (a sample's), or None where arithmetic is not what is measured.
        samples: Samples of one round, over which the operations are multiplied.
    """

    key: str
    group: Group
    side: Side
    kind: str
    about: str
    options: dict[str, Any]
    flops: str | None = None
    samples: int = 1


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two cells side by side.

    Attributes:
        ours, reference: Keys of cells.
        what: `time` or `memory`.
        floor: The ratio (reference / ours) below which we fall short at 0.9B; None where only the numbers are shown.
    """

    name: str
    ours: str
    reference: str
    floor: float | None = None
    what: Literal["time", "memory"] = "time"


def cells_of(
    groups: Iterable[str],
    size: Size,
    views: tuple[int, ...],
    *,
    peer: bool,
    samplers: list[str],
    absent: Iterable[str] = (),
    whole: bool = False,
) -> list[Cell]:
    """Every cell of the chosen groups, the cheap ones first.

    Args:
        absent: Kinds of steps for which this machine lacks something.
        whole: Take all steps of the end-to-end comparison, instead of extrapolating from a few.
    """
    if whole:
        size = replace(size, steps=STEPS, frames=FRAMES)
    made: list[Cell] = []
    if "steps" in groups:
        kinds = [kind for kind in STEP_KINDS if kind[1] not in absent]
        for count in views:
            made += [
                _step(*kind, size, count) for kind in kinds if count == views[0] or kind[1] in ("prompt", "public")
            ]
    if "inference" in groups:
        made += [_inference("ours", sampler, views[0]) for sampler in samplers]
        made.append(_inference("lerobot", "exact", views[0]))
    if "pipeline" in groups:
        made += [_pipeline("ours"), _pipeline("lerobot")]
    if "end-to-end" in groups:
        made += [_end_to_end("ours", size, views[0]), _end_to_end("public", size, views[0])]
    return [cell for cell in made if peer or cell.side != "lerobot"]


STEP_KINDS: tuple[tuple[Side, str, str], ...] = (
    ("ours", "prompt", "prompt only, from cached features"),
    ("ours", "lora", "LoRA on the policy transformer, from cached features"),
    ("ours", "prompt_uncached", "prompt only, encoder in the loop"),
    ("ours", "lora_everywhere", "LoRA on every linear layer"),
    ("lerobot", "lora_everywhere", "LeRobot: LoRA on every linear layer"),
    ("public", "public_lora", "public recipe: LoRA on every linear layer, whole tables"),
    ("ours", "full_checkpointed", "full, activations recomputed"),
    ("ours", "full_frugal", "full, activations recomputed, moments of one byte"),
    ("ours", "full", "full"),
    ("ours", "full_compiled", "full, blocks compiled"),
    ("lerobot", "full", "LeRobot: full"),
    ("public", "public", "public recipe: stage 1, frozen by a rate of 0"),
)


def comparisons_of(cells: list[Cell], views: tuple[int, ...], samplers: list[str]) -> list[Comparison]:
    """The pairs whose two cells are there."""
    first = views[0]
    every = [
        *(
            Comparison(
                name=f"prompt only from cache, {count} views : public stage 1",
                ours=f"ours.prompt.{count}",
                reference=f"public.public.{count}",
                floor={2: 5.17, 3: 5.79}.get(count),
            )
            for count in views
        ),
        Comparison(
            name=f"prompt only from cache, {first} views, memory : public stage 1",
            ours=f"ours.prompt.{first}",
            reference=f"public.public.{first}",
            floor=17.2 / 2.5,
            what="memory",
        ),
        Comparison(
            name="prompt only, encoder in the loop : public stage 1",
            ours=f"ours.prompt_uncached.{first}",
            reference=f"public.public.{first}",
        ),
        Comparison(
            name="LoRA from cache : public LoRA",
            ours=f"ours.lora.{first}",
            reference=f"public.public_lora.{first}",
            floor=3.0,
        ),
    ]
    for kind, name in (("lora_everywhere", "LoRA everywhere"), ("full", "full")):
        pair = f"ours.{kind}.{first}", f"lerobot.{kind}.{first}"
        every.append(Comparison(name=f"{name} : LeRobot's", ours=pair[0], reference=pair[1], floor=1.0))
        every.append(
            Comparison(name=f"{name}, memory : LeRobot's", ours=pair[0], reference=pair[1], floor=1.0, what="memory")
        )
    every += [
        Comparison(
            name="full, recomputing, memory : LeRobot's full",
            ours=f"ours.full_checkpointed.{first}",
            reference=f"lerobot.full.{first}",
            floor=1 / 0.6,
            what="memory",
        ),
        Comparison(
            name="full, recomputing, moments of one byte, memory : LeRobot's full",
            ours=f"ours.full_frugal.{first}",
            reference=f"lerobot.full.{first}",
            floor=1 / 0.6,
            what="memory",
        ),
        Comparison(
            name="full, blocks compiled : full",
            ours=f"ours.full_compiled.{first}",
            reference=f"ours.full.{first}",
        ),
        Comparison(
            name="chunk, exact : LeRobot's",
            ours=f"ours.inference.exact.{first}",
            reference=f"lerobot.inference.exact.{first}",
            floor=1.0,
        ),
        Comparison(
            name="chunk, ten steps merged : LeRobot's",
            ours=f"ours.inference.merged.{first}",
            reference=f"lerobot.inference.exact.{first}",
            floor=1.0,
        ),
        *(
            Comparison(
                name=f"chunk, {sampler} : exact",
                ours=f"ours.inference.{sampler}.{first}",
                reference=f"ours.inference.exact.{first}",
            )
            for sampler in samplers
            if sampler != "exact"
        ),
        Comparison(
            name="batches from video : LeRobot's", ours="ours.pipeline", reference="lerobot.pipeline", floor=2.0
        ),
        Comparison(
            name="1,000 steps of 16, cache included : public stage 1",
            ours=f"ours.end_to_end.{first}",
            reference=f"public.end_to_end.{first}",
            floor=4.5,
        ),
    ]
    there = {cell.key for cell in cells}
    return [pair for pair in every if {pair.ours, pair.reference} <= there]


def _step(side: Side, kind: str, about: str, size: Size, views: int) -> Cell:
    # What LeRobot does to a sample has the arithmetic of the official scripts.
    counted = {"full": "public", "lora_everywhere": "public_lora"}.get(kind, kind) if side == "lerobot" else kind
    options = {"views": views, "batch": size.batch, "micro": size.batch}
    return Cell(
        key=f"{side}.{kind}.{views}",
        group="steps",
        side=side,
        kind=kind,
        about=f"{about}, {views} views",
        options=options,
        flops=f"{views}.{counted}",
        samples=size.batch,
    )


def _inference(side: Side, sampler: str, views: int) -> Cell:
    name = "LeRobot: " if side == "lerobot" else ""
    return Cell(
        key=f"{side}.inference.{sampler}.{views}",
        group="inference",
        side=side,
        kind="inference",
        about=f"{name}a chunk, {sampler}, {views} views",
        options={"views": views, "batch": 1, "sampler": sampler},
        flops=f"{views}.inference.{'lerobot' if side == 'lerobot' else sampler}",
    )


def _pipeline(side: Side) -> Cell:
    name = "LeRobot: " if side == "lerobot" else ""
    return Cell(
        key=f"{side}.pipeline",
        group="pipeline",
        side=side,
        kind="pipeline",
        about=f"{name}batches of {PIPELINE_BATCH} from video",
        options={"views": 2, "batch": PIPELINE_BATCH},
    )


def _end_to_end(side: Side, size: Size, views: int) -> Cell:
    kind = "end_to_end" if side == "ours" else "end_to_end_public"
    about = "prompt only, cache built first" if side == "ours" else "public recipe: stage 1"
    options = {"views": views, "batch": SAMPLES, "micro": size.micro, "frames": size.frames, "rounds": size.steps}
    return Cell(
        key=f"{side}.end_to_end.{views}",
        group="end-to-end",
        side=side,
        kind=kind,
        about=f"1,000 steps of {SAMPLES} on 1,000 frames, {about}, {views} views",
        options={**options, "limit_s": float("inf")},
        flops=f"{views}.{kind}",
    )
