"""Ablations: which input of a policy is taken away, and how. The same conditions serve open and closed loop.

`prompt`: the slot's prompt tokens set to zero, or to those of the pretrained robot whose prompt is nearest (the
kindest exchange), or that robot's whole slot. `vision`: one camera at a time black, frozen at the episode's first
frame, or showing the mean of the demonstrations. `language`: the command for something else, or none.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from xvla_platform.closed_loop.wrong_words import wrong_words
from xvla_platform.errors import XvlaError
from xvla_platform.modelling.slot import read_rows, write_rows
from xvla_platform.policy.policy import Observation, Policy
from xvla_platform.specs.embodiment import EmbodimentSpec

KINDS: dict[str, tuple[str, ...]] = {
    "prompt": ("zero", "other", "slot"),
    "vision": ("black", "frozen", "mean"),
    "language": ("wrong", "empty"),
}
PROMPT_TABLE = "soft_prompt_hub"
Image = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One way to run a policy: as it is, or with one input changed.

    Attributes:
        input: `prompt`, `vision` or `language`; None for the policy as it is.
        kind: What is done to it, one of `KINDS`.
        camera: The camera concerned.
        other: Domain id and name of the pretrained robot whose rows are lent.
    """

    input: str | None = None
    kind: str = ""
    camera: str | None = None
    other: tuple[int, str] | None = None

    @property
    def name(self) -> str:
        """How results call it: `own`, `prompt: zero`, `prompt: slot of panda`, `vision: front black`."""
        if self.input is None:
            return "own"
        what = self.kind if self.camera is None else f"{self.camera} {self.kind}"
        if self.other is not None:
            what = f"{'slot' if self.kind == 'slot' else 'prompt'} of {self.other[1]}"
        return f"{self.input}: {what}"


OWN = Condition()


@dataclass(frozen=True, kw_only=True)
class Material:
    """What conditions need from the demonstrations.

    Attributes:
        mean_images: Mean frame uint8 [H, W, 3] of each camera, as the robot sends it.
        instructions: The commands in the demonstrations.
    """

    mean_images: Mapping[str, Image] = field(default_factory=dict)
    instructions: tuple[str, ...] = ()


def parse(text: str) -> list[tuple[str, str]]:
    """`prompt,vision:black` as (input, kind) pairs; an input alone means all of its kinds."""
    out: list[tuple[str, str]] = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, _, kind = word.partition(":")
        if name not in KINDS or (kind and kind not in KINDS[name]):
            allowed = [*KINDS, *(f"{key}:{value}" for key, values in KINDS.items() for value in values)]
            raise XvlaError("unknown ablation", field="ablate", found=word, allowed=allowed)
        out += [(name, each) for each in ((kind,) if kind else KINDS[name]) if (name, each) not in out]
    if not out:
        raise XvlaError("names no input", field="ablate", found=text or "nothing", allowed=list(KINDS))
    return out


def conditions_of(
    wanted: Sequence[tuple[str, str]], policy: Policy, used: Mapping[int, str], material: Material
) -> tuple[list[Condition], list[str]]:
    """Every condition that can be had, the policy as it is first, and why others cannot.

    Args:
        used: Domain id to name of the base's pretrained robots.
    """
    conditions, missing = [OWN], []
    spec, own = policy.record.spec, policy.record.slot.domain_id
    for name, kind in wanted:
        if name == "vision":
            cameras = [camera.name for camera in spec.ordered_cameras]
            if kind == "mean" and not material.mean_images:
                missing.append("vision:mean needs the demonstrations, which are not at hand")
                continue
            conditions += [Condition(input=name, kind=kind, camera=camera) for camera in cameras]
        elif name == "language":
            conditions.append(Condition(input=name, kind=kind))
        elif _prompt_table(policy) is None:
            missing.append(f"prompt:{kind} needs a base with soft prompts")
        elif kind == "zero":
            conditions.append(Condition(input=name, kind=kind))
        else:
            others = {domain: label for domain, label in used.items() if domain != own}
            if not others:
                missing.append(f"prompt:{kind} needs another robot in the base, which names none")
                continue
            nearest = nearest_prompt(policy, sorted(others))
            conditions.append(Condition(input=name, kind=kind, other=(nearest, others[nearest])))
    return conditions, missing


def nearest_prompt(policy: Policy, domains: Sequence[int]) -> int:
    """The domain whose prompt lies nearest to the policy's own without being a copy of it, by Euclidean distance."""
    table = _prompt_table(policy)
    assert table is not None
    own = read_rows(policy.model, policy.record.slot.domain_id)[table]
    distances = {domain: float((read_rows(policy.model, domain)[table] - own).norm()) for domain in domains}
    different = {domain: distance for domain, distance in distances.items() if distance > 0.0} or distances
    return min(different, key=lambda domain: (different[domain], domain))


@contextmanager
def exchanged(policy: object, condition: Condition) -> Iterator[None]:
    """The policy's rows as the condition has them; its own come back at the end."""
    if condition.input != "prompt":
        yield
        return
    assert isinstance(policy, Policy), "only an X-VLA policy has a prompt"
    model, domain = policy.model, policy.record.slot.domain_id
    own, table = read_rows(model, domain), _prompt_table(policy)
    assert table is not None
    if condition.kind == "slot":
        assert condition.other is not None
        rows = read_rows(model, condition.other[0])
    elif condition.kind == "other":
        assert condition.other is not None
        rows = {**own, table: read_rows(model, condition.other[0])[table]}
    else:
        rows = {**own, table: torch.zeros_like(own[table])}
    write_rows(model, domain, rows)
    try:
        yield
    finally:
        write_rows(model, domain, own)


def changed(
    observation: Observation,
    condition: Condition,
    material: Material,
    *,
    first_images: Mapping[str, Image],
    other_instruction: str | None,
) -> Observation:
    """The observation as the condition has it.

    Args:
        first_images: Images of the episode's first frame.
        other_instruction: A command for something else in this scene; without it, one of the demonstrations' that
            names another thing (`wrong_words`).
    """
    if condition.input == "vision":
        assert condition.camera is not None
        sources = {
            "black": lambda camera: np.zeros_like(observation.images[camera]),
            "frozen": lambda camera: first_images[camera],
            "mean": lambda camera: material.mean_images[camera],
        }
        image = sources[condition.kind](condition.camera)
        return replace(observation, images={**observation.images, condition.camera: image})
    if condition.input == "language":
        if condition.kind == "empty":
            return replace(observation, instruction="")
        wrong = wrong_words(observation.instruction, other_instruction, material.instructions)
        return replace(observation, instruction=wrong)
    return observation


def mean_image(frames: Image) -> Image:
    """Mean [H, W, 3] of frames [N, H, W, 3], rounded."""
    return np.asarray(np.round(frames.mean(axis=0, dtype=np.float64)), dtype=np.uint8)


def cameras_of(spec: EmbodimentSpec) -> list[str]:
    """Camera names in the order of `Samples.images`."""
    return [camera.name for camera in spec.ordered_cameras]


def _prompt_table(policy: Policy) -> str | None:
    names = [name for name in read_rows(policy.model, policy.record.slot.domain_id) if name.endswith(PROMPT_TABLE)]
    return names[0] if names else None
