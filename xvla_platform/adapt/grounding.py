"""Where is the named object? A loss for pretraining that makes an encoder find what an instruction names.

Two linear heads read the main view's tokens on a grid. One reads them before the words, with a channel for each thing
that can be named: so every colour and shape is worth seeing before the words are understood. The other reads them
after the words and marks what is named alone: what is named first (the cube to be put somewhere) and what second (the
plate that it goes on). A loss of the second kind without the first rests at "some object is here". The heads are
trained with the encoder (group `vlm`), kept in checkpoints, and are no part of the base.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xvla_platform.errors import XvlaError
from xvla_platform.modelling import florence
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.xvla import XVLA

NOTHING = -1  # in place of a number: no second thing is named
ROLES = 2  # what an instruction names first, and what second
HEADS = "grounding"  # below the encoder, so that they belong to its group, its optimizer and its checkpoints
_CELL = 3  # numbers a cell: how likely it is the one, and the offset from its centre, in cells


class GroundingHeads(nn.Module):
    """Two linear readings of a grid of image tokens: one channel a class before the words, one a role after them."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.raw = nn.Linear(width, _CELL * classes)
        self.fused = nn.Linear(width, _CELL * ROLES)

    def forward(self, raw: Tensor, fused: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Main-view tokens [B, G·G, D] before and after the words, classes [B, 2] → both answers [B, 2, G·G, 3]."""
        channels = self.raw(raw).unflatten(-1, (-1, _CELL)).transpose(1, 2)
        chosen = classes.view(-1, ROLES, 1, 1).expand(-1, -1, *channels.shape[2:])
        return channels.gather(1, chosen), self.fused(fused).unflatten(-1, (ROLES, _CELL)).transpose(1, 2)


class GroundedXVLA(XVLA):
    """X-VLA as pretraining calls it: the policy's losses, the grounding losses, or both.

    Attributes:
        weight: Scales both grounding losses; 0 leaves them out.
        acts: False leaves the policy out, and encodes main views only.
    """

    def __init__(self, config: XVLAConfig) -> None:
        super().__init__(config)
        self.weight = 0.0
        self.acts = True

    def reaches(self, name: str) -> bool:
        """Without grounding losses nothing reaches the heads: processes would wait for their gradients in vain."""
        return bool(self.weight) or not name.startswith(f"vlm.{HEADS}.")

    def forward(self, **inputs: Any) -> dict[str, Tensor]:
        """Losses by name; takes what `XVLA.forward` takes for encoding in the loop, and what `mixture` adds to it.

        Args:
            uv: [B, 2, 2] what is named first and second in the main view, 0..1 from the top left; NaN where unknown.
            classes: [B, 2] what is named.
            share: [B, 2] weight of each grounding loss, 0 where unknown; its sum over the whole batch is the batch.
            picture: [B] equal numbers for samples with the same images, which are encoded once.
        """
        uv, classes, share, picture = (inputs.pop(name) for name in ("uv", "classes", "share", "picture"))
        words, images, mask = (inputs.pop(name) for name in ("input_ids", "pixel_values", "image_mask"))
        views, features = encode_pictures(self, words, images, mask, picture, main_only=not self.acts)
        terms = super().forward(features=features, **inputs) if self.acts else {}
        if self.weight:
            answers = read(self, views, features[0], classes)
            for name, answer in zip(("grounding_raw", "grounding_fused"), answers, strict=True):
                terms[name] = self.weight * (errors(answer, uv.nan_to_num(0.5)) * share).sum(1).mean()
        return terms


def encode_pictures(
    model: XVLA,
    input_ids: Tensor,
    pixel_values: Tensor,
    image_mask: Tensor,
    picture: Tensor,
    *,
    main_only: bool = False,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Views [B, V, N, D] before the words, and what `XVLA.encode` returns; each distinct picture is encoded once."""
    assert model.vlm is not None
    if main_only:
        pixel_values, image_mask = pixel_values[:, :1], image_mask[:, :1]
    first, of = _distinct(picture)
    views = florence.view_features(model.vlm, pixel_values[first], image_mask[first])[of]
    return views, florence.with_words(model.vlm, views, input_ids)


def attach_heads(model: XVLA, classes: int, seed: int) -> None:
    """Give the encoder its grounding heads, initialised from `seed`."""
    assert model.vlm is not None
    width = int(model.config.florence["projection_dim"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = GroundingHeads(width, classes)
    model.vlm.add_module(HEADS, heads.to(next(model.parameters()).device))


def detach_heads(model: XVLA) -> None:
    """Take the heads off: what remains is a base as any other."""
    if model.vlm is not None and hasattr(model.vlm, HEADS):
        delattr(model.vlm, HEADS)


def read(model: XVLA, views: Tensor, vlm_features: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Both heads' answers [B, 2, G·G, 3] for views [B, V, N, D] and vlm_features; the pooled token is left out."""
    assert model.vlm is not None
    count = views.shape[2]
    answers: tuple[Tensor, Tensor] = getattr(model.vlm, HEADS)(views[:, 0, 1:], vlm_features[:, 1:count], classes)
    return answers


def errors(answer: Tensor, uv: Tensor) -> Tensor:
    """Cross-entropy over the grid's cells, and L1 of the offset at the true cell, in cells.

    Args:
        answer: [..., G·G, 3]. uv: [..., 2]. Returns [...].
    """
    answer = answer.float()
    side = math.isqrt(answer.shape[-2])
    place = (uv * side).clamp(0, side - 1e-3)
    column, row = place.long().unbind(-1)
    cell = row * side + column
    offset = place - place.floor() - 0.5
    missed = (_at(answer, cell) - offset).abs().mean(-1)
    chances = answer[..., 0].flatten(0, -2)
    return F.cross_entropy(chances, cell.flatten(), reduction="none").view(cell.shape) + missed


def locate(answer: Tensor) -> Tensor:
    """The most likely places [..., 2] in the main view, 0..1 from its top left, for answers [..., G·G, 3]."""
    side = math.isqrt(answer.shape[-2])
    cell = answer[..., 0].argmax(-1)
    return (torch.stack([cell % side, cell // side], dim=-1) + 0.5 + _at(answer, cell)) / side


def _at(answer: Tensor, cell: Tensor) -> Tensor:
    """The offsets [..., 2] at one cell each."""
    index = cell[..., None, None].expand(*cell.shape, 1, 2)
    return answer[..., 1:].gather(-2, index).squeeze(-2)


def things_named(instructions: Sequence[str], objects: Mapping[str, Sequence[str]]) -> dict[str, tuple[int, int]]:
    """The numbers of what each instruction names first and second; the second is `NOTHING` where it names one thing.

    Args:
        objects: Phrases by thing, in lower case. Without any, an instruction as a whole stands for what it names.
    """
    if not objects:
        return {words: (i, len(instructions) + i) for i, words in enumerate(instructions)}
    out = {}
    for words in instructions:
        found = sorted(
            (words.lower().find(phrase), number)
            for number, phrases in enumerate(objects.values())
            for phrase in phrases
            if phrase in words.lower()
        )
        named = list(dict.fromkeys(number for _, number in found))
        if not named:
            raise XvlaError("an instruction names none of the objects", field="objects", found=words, allowed=objects)
        out[words] = (named[0], named[1] if len(named) > 1 else NOTHING)
    return out


def count_things(instructions: Sequence[str], objects: Mapping[str, Sequence[str]]) -> int:
    """How many classes `things_named` tells apart."""
    return len(objects) or ROLES * len(instructions)


def _distinct(picture: Tensor) -> tuple[Tensor, Tensor]:
    """The first place of each distinct number, and for each number which of those it is."""
    distinct, of = torch.unique(picture, return_inverse=True)
    places = torch.arange(len(picture), device=picture.device)
    first = torch.full((len(distinct),), len(picture), device=picture.device)
    return first.scatter_reduce(0, of, places, "amin"), of
