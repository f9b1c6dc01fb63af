"""How a new slot starts: from the existing slot that predicts this robot best, a mixture of them, or at random.

With cached features the loss of every existing slot on this robot's data costs seconds, so starts are measured, never
guessed. The slots are ranked on training episodes; what was chosen is compared with the best single slot on validation
episodes, which the choice has not seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from xvla_platform.adapt.robot_data import Split
from xvla_platform.adapt.slot_mixture import fit_mixture, mix
from xvla_platform.adapt.slot_probe import probe_of, slot_loss
from xvla_platform.errors import XvlaError
from xvla_platform.modelling.processor import Processor
from xvla_platform.modelling.slot import mean_rows, random_rows, read_rows, write_rows
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.platform.bases import ResolvedBase
from xvla_platform.specs.embodiment import PromptSpec

SHOWN = 0.02  # smallest weight of a mixture that is worth a word


@dataclass(frozen=True, kw_only=True)
class Initialisation:
    """Where the slot's rows came from.

    Attributes:
        method: As the plugin or the user asked for. source: What was done, in words.
        losses: Loss of every existing slot on training episodes, the lowest first.
        held_out: Loss on validation episodes: of the start, and of the best existing slot.
        weights: Shares of a mixture, by slot.
    """

    method: str
    source: str
    losses: dict[str, float] = field(default_factory=dict)
    held_out: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)

    @property
    def lines(self) -> list[str]:
        """What a user is told: the start, the ranking, and how the start does on held-out episodes."""
        out = [f"starts as {self.source}"]
        if self.losses:
            first = ", ".join(f"{slot} {loss:.3f}" for slot, loss in list(self.losses.items())[:3])
            out.append(f"existing slots by loss on training episodes: {first} (of {len(self.losses)})")
        if len(self.held_out) > 1:
            compared = "; ".join(f"{name} {loss:.3f}" for name, loss in self.held_out.items())
            out.append(f"on validation episodes: {compared}")
            own, best = (self.held_out[name] for name in list(self.held_out)[:2])
            if best < own:
                out.append("`--init nearest` would start lower on validation episodes")
        return out


def check_initialisation(prompt: PromptSpec, base: ResolvedBase) -> None:
    """Refuse a start that this base cannot give."""
    if prompt.copy_from is not None and prompt.copy_from >= base.num_domains:
        raise XvlaError(
            f"{base.id} has no such slot to copy",
            field="prompt.copy_from",
            found=prompt.copy_from,
            allowed=f"0-{base.num_domains - 1}",
        )
    if prompt.init in ("nearest", "mean", "mixture") and not base.used_domains:
        raise XvlaError(
            f"no slot of {base.id} was used in its pretraining",
            field="prompt.init",
            found=prompt.init,
            allowed="random, copy",
        )


def choose_start(
    model: XVLA,
    domain_id: int,
    prompt: PromptSpec,
    used: Mapping[int, str],
    splits: Mapping[str, Split],
    processor: Processor,
    seed: int,
) -> tuple[Initialisation, dict[str, Tensor]]:
    """The rows that a slot starts with, and where they came from; row `domain_id` of the model serves to measure."""
    probe = probe_of(splits["train"], model, processor)
    held_out = probe_of(splits["validation"], model, processor)
    ranking = sorted((slot_loss(model, domain, probe, seed), domain) for domain in used)
    names = {domain: f"{domain} ({used[domain]})" for domain in used}
    weights: dict[str, float] = {}
    if prompt.init == "random":
        rows, origin = random_rows(model, seed), f"random (seed {seed})"
    elif prompt.init == "mean":
        rows, origin = mean_rows(model, sorted(used)), f"the mean of {len(used)} slots"
    elif prompt.init == "copy":
        assert prompt.copy_from is not None
        rows = read_rows(model, prompt.copy_from)
        origin = f"a copy of {prompt.copy_from} ({used.get(prompt.copy_from, 'unused')})"
    elif prompt.init == "mixture":
        shares = fit_mixture(model, domain_id, [(domain, loss) for loss, domain in ranking], probe, seed)
        rows = mix(model, shares)
        weights = {f"{domain} {used[domain]}": round(share, 4) for domain, share in shares.items()}
        shown = [f"{share:.2f} x {names[domain]}" for domain, share in shares.items() if share >= SHOWN]
        origin = f"a learned mixture: {', '.join(shown)}"
    else:
        rows, origin = read_rows(model, ranking[0][1]), f"a copy of {names[ranking[0][1]]}, lowest measured loss"
    write_rows(model, domain_id, rows)
    compared: dict[str, float] = {prompt.init: round(slot_loss(model, domain_id, held_out, seed), 4)}
    if prompt.init != "nearest" and ranking:
        best = ranking[0][1]
        compared[f"nearest, {names[best]}"] = round(slot_loss(model, best, held_out, seed), 4)
    initial = Initialisation(
        method=prompt.init,
        source=origin,
        losses={f"{domain} {used[domain]}": round(loss, 4) for loss, domain in ranking},
        held_out=compared,
        weights=weights,
    )
    return initial, rows


def as_prompt(text: str, where: str) -> PromptSpec:
    """`nearest`, `mean`, `random`, `mixture` or `copy:ID`, which the user wrote at `where`, as a start."""
    allowed = "nearest, mean, random, mixture, copy:ID"
    name, colon, number = text.partition(":")
    if name == "copy" and number.isdecimal():
        return PromptSpec(init="copy", copy_from=int(number))
    if colon or name not in ("nearest", "mean", "random", "mixture"):
        raise XvlaError("is no start of a slot", field=where, found=text, allowed=allowed)
    return PromptSpec(init=name)
