"""What taking an input away did to a policy: differences with intervals, a verdict for each input, and a picture.

In: a closed-loop result with several conditions, or open-loop errors of each. Out: one `Effect` a condition and
measure, where `harm` is how much worse the policy became: lost success, or added error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xvla_platform.closed_loop.conditions import OWN, Condition
from xvla_platform.closed_loop.intervals import paired_difference
from xvla_platform.closed_loop.results import ClosedLoopResult

SUCCESS, MEAN_ERROR = "success", "mean error"
HURT, HELPED, NEITHER = "#d1495b", "#30638e", "#9aa5b1"


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One condition against the policy as it is, over the same episodes.

    Attributes:
        measure: `success`, or an action field, or `mean error` (over fields, as shares of the policy's own error).
        own, other: The policy as it is, and under the condition.
        harm: How much worse: `own - other` of success, `other - own` of errors.
        low, high: 95 % interval of `harm`, episodes drawn as wholes.
    """

    condition: str
    input: str
    measure: str
    unit: str
    own: float
    other: float
    harm: float
    low: float
    high: float

    @property
    def says(self) -> str:
        """`hurts`, `helps`, or that no difference is shown."""
        if self.low > 0:
            return "hurts"
        return "helps" if self.high < 0 else "no difference shown"


def closed_loop_effects(result: ClosedLoopResult, conditions: Sequence[Condition]) -> list[Effect]:
    """Lost success of every changed condition, over all tasks."""
    own = np.array([episode.success for episode in result.of(OWN.name)], dtype=np.float64)
    out = []
    for condition in (each for each in conditions if each.input is not None):
        other = np.array([episode.success for episode in result.of(condition.name)], dtype=np.float64)
        mean, low, high = paired_difference(other, own)
        out.append(
            Effect(
                condition=condition.name,
                input=str(condition.input),
                measure=SUCCESS,
                unit="share of episodes",
                own=float(own.mean()),
                other=float(other.mean()),
                harm=mean,
                low=low,
                high=high,
            )
        )
    return out


def open_loop_effects(
    errors: Mapping[str, Mapping[str, NDArray[Any]]],
    conditions: Sequence[Condition],
    units: Mapping[str, str],
    episodes: NDArray[np.int64],
) -> list[Effect]:
    """Added error of every changed condition, per action field and over all of them.

    Args:
        errors: Condition to field to error of each frame [N].
        episodes: [N] the episode of each frame.
    """
    own = dict(errors[OWN.name])
    scale = {name: max(float(values.mean()), 1e-9) for name, values in own.items()}
    own[MEAN_ERROR] = _mean_error(own, scale)
    units = {**units, MEAN_ERROR: "x own error"}
    out = []
    for condition in (each for each in conditions if each.input is not None):
        other = dict(errors[condition.name])
        other[MEAN_ERROR] = _mean_error(other, scale)
        for measure, values in other.items():
            mean, low, high = paired_difference(own[measure], values, episodes)
            out.append(
                Effect(
                    condition=condition.name,
                    input=str(condition.input),
                    measure=measure,
                    unit=units[measure],
                    own=float(own[measure].mean()),
                    other=float(values.mean()),
                    harm=mean,
                    low=low,
                    high=high,
                )
            )
    return out


def headline(effects: Sequence[Effect]) -> list[Effect]:
    """One effect a condition: success, or the error over all fields."""
    return [effect for effect in effects if effect.measure in (SUCCESS, MEAN_ERROR)]


def verdicts(effects: Sequence[Effect]) -> dict[str, str]:
    """For each input one sentence: whether it matters to this policy, with the strongest evidence."""
    out = {}
    for name in dict.fromkeys(effect.input for effect in effects):
        mine = [effect for effect in headline(effects) if effect.input == name]
        hurts = [effect for effect in mine if effect.says == "hurts"]
        worst = max(hurts or mine, key=lambda effect: effect.harm)
        word = "matters" if hurts else "is not shown to matter"
        out[name] = f"{name} {word}: {evidence(worst)}"
    return out


def evidence(effect: Effect) -> str:
    """`vision: front black takes 34 % of success (21 to 47)`."""
    if effect.measure == SUCCESS:
        numbers = f"{100 * effect.harm:.0f} points of success (95 %: {100 * effect.low:.0f} to {100 * effect.high:.0f})"
        return f"{effect.condition} takes {numbers}"
    numbers = f"{effect.harm:.2f} of the policy's own error (95 %: {effect.low:.2f} to {effect.high:.2f})"
    return f"{effect.condition} adds {numbers}"


def as_dict(effects: Sequence[Effect]) -> dict[str, Any]:
    """Plain values for `ablation.json`."""
    return {
        "schema_version": 1,
        "effects": [{**asdict(effect), "says": effect.says} for effect in effects],
        "verdicts": verdicts(effects),
    }


def plot_effects(path: Path, effects: Sequence[Effect], title: str) -> None:
    """One bar a condition: how much worse the policy becomes, with its interval."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    shown = headline(effects)
    figure, axis = plt.subplots(figsize=(8.0, 1.4 + 0.38 * len(shown)))
    places = np.arange(len(shown))[::-1]
    colours = [{"hurts": HURT, "helps": HELPED}.get(effect.says, NEITHER) for effect in shown]
    axis.barh(places, [effect.harm for effect in shown], color=colours, height=0.62)
    # The mean of few draws may leave its own interval by rounding.
    below = [max(0.0, effect.harm - effect.low) for effect in shown]
    above = [max(0.0, effect.high - effect.harm) for effect in shown]
    axis.errorbar(
        [effect.harm for effect in shown], places, xerr=[below, above], fmt="none", ecolor="#22223b", capsize=3
    )
    axis.axvline(0.0, color="#22223b", linewidth=0.8)
    axis.set_yticks(places, [effect.condition for effect in shown], fontsize=9)
    success = bool(shown) and shown[0].measure == SUCCESS
    axis.set_xlabel("success lost (share of episodes)" if success else "error added (in the policy's own errors)")
    axis.set_title(title, fontsize=10)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _mean_error(errors: Mapping[str, NDArray[Any]], scale: Mapping[str, float]) -> NDArray[Any]:
    return np.mean([errors[name] / scale[name] for name in scale], axis=0)
