"""Four ways to absorb what differs between robots (arXiv 2510.10274, Sec. 3 and App. I), as data.

The action encoder and decoder are per-domain in all of them, because the same number means another thing on another
robot; a strategy says what else a domain owns. It is the field `strategy` of `config.json`; the model asks it in one
place (`transformer.SoftPromptedTransformer.__init__`), and every table here is a slot's row.

`soft_prompt`      prompt tokens of its own, appended to the sequence: the published model
`action_heads`     nothing else
`hpt_projection`   queries, keys and values of its own, with which it reads the observation into few tokens
`language_prompt`  a sentence that describes the robot, appended to every instruction
"""

from dataclasses import dataclass
from typing import Literal

from xvla_platform.specs.embodiment import EmbodimentSpec

StrategyName = Literal["soft_prompt", "action_heads", "hpt_projection", "language_prompt"]
Backbone = Literal["encoder", "dit"]
BACKBONES: tuple[Backbone, ...] = ("encoder", "dit")
PROMPTS = "transformer.soft_prompt_hub"
HEADS = tuple(f"transformer.{head}.{part}" for head in ("action_encoder", "action_decoder") for part in ("fc", "bias"))
_PROJECTIONS = ("transformer.vlm_proj", "transformer.aux_visual_proj")
HETERO = tuple(f"{name}.{part}" for name in _PROJECTIONS for part in ("fc", "bias"))
RESAMPLERS = tuple(f"{name}.{part}" for name in _PROJECTIONS for part in ("queries", "key_value.fc", "key_value.bias"))
ANY_TABLE = (PROMPTS, *HEADS, *HETERO, *RESAMPLERS)


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """What a domain owns beside its action heads: prompt tokens, a resampler of observations, a description."""

    prompts: bool = False
    resamples: bool = False
    describes: bool = False


STRATEGIES: dict[StrategyName, Strategy] = {
    "soft_prompt": Strategy(prompts=True),
    "action_heads": Strategy(),
    "hpt_projection": Strategy(resamples=True),
    "language_prompt": Strategy(describes=True),
}


def slot_tables(strategy: StrategyName, *, hetero: bool = False) -> tuple[str, ...]:
    """Module names of the per-domain tables: a slot is one row of each."""
    chosen = STRATEGIES[strategy]
    prompts = (PROMPTS,) if chosen.prompts else ()
    projections = RESAMPLERS if chosen.resamples else HETERO if hetero else ()
    return (*prompts, *HEADS, *projections)


def is_table(name: str) -> bool:
    """Whether a parameter belongs to a per-domain table of some strategy, or is an open row of one."""
    return any(name.startswith(f"{module}.") for module in ANY_TABLE)


def is_projection_table(name: str) -> bool:
    """Whether a parameter belongs to a per-domain projection of observations."""
    return any(name.startswith(f"{module}.") for module in (*HETERO, *RESAMPLERS))


def describe(robot: EmbodimentSpec) -> str:
    """The sentence that stands for a robot in `language_prompt`, after the paper's templates."""
    cameras = " / ".join(camera.name for camera in robot.ordered_cameras)
    what = robot.description.rstrip(". ")
    return f"Embodiment: {what}, Camera Setup: {cameras}, Freq: {robot.control_hz:g}Hz"
