"""Whether a camera's red and blue are exchanged, by what the instructions call red and blue.

In: footage. Out: a `Guess` of `rgb` or `bgr` a camera. Instructions that name one of the two colours split the
episodes; what is named comes into view as the hand reaches it, so its colour gains on the other one. A camera
that this does not settle is compared with one that it does: what is red in one scene is red for both. Where
the instructions name no colours, nothing is concluded.
"""

import re

import numpy as np

from xvla_platform.data.reader import Images
from xvla_platform.measure.cameras_footage import Footage
from xvla_platform.measure.guess import SURE, Guess

RED = re.compile(r"\bred\b", re.IGNORECASE)
BLUE = re.compile(r"\bblue\b", re.IGNORECASE)
DOMINANT = 40  # grey levels by which red exceeds blue, or blue red, in a coloured pixel
MIN_EPISODES = 4  # of each colour
SIGNIFICANT = 4.0  # standard errors
STRONG = 75  # grey levels between red and blue of a pixel that is one of the two
MIN_SHARED = 12
AGREEMENT = 3.0  # standard errors


def channels(footage: Footage) -> dict[str, Guess]:
    """Per camera, the order in which its colours were stored: `rgb`, `bgr`, or None where nothing tells."""
    guesses = {key: _by_words(footage, key) for key in footage.keys}
    known = max(guesses, key=lambda key: guesses[key].confidence, default=None)
    if known is None or guesses[known].confidence < SURE:
        return guesses
    for key, guess in guesses.items():
        if guess.value is None:
            guesses[key] = _by_other(footage, key, known, guesses[known])
    return guesses


def _by_other(footage: Footage, key: str, other: str, guess: Guess) -> Guess:
    """What a camera whose order is known says about another that sees the same scenes."""
    shared = [episode for episode in footage.streams[key].stills if episode in footage.streams[other].stills]
    if len(shared) < MIN_SHARED:
        return Guess(value=None, confidence=0.0, evidence="too few episodes to compare with another camera")
    pairs = [[_shares(footage.streams[name].stills[episode][:2]) for episode in shared] for name in (key, other)]
    table = np.concatenate([np.array(pair) for pair in pairs], axis=1)  # red, blue, other's red, other's blue
    if (table.std(0) < 1e-4).any():
        return Guess(value=None, confidence=0.0, evidence="there is too little red and blue to compare")
    between = np.corrcoef(table.T)
    score = (between[0, 2] + between[1, 3] - between[0, 3] - between[1, 2]) / 2 * np.sqrt(len(shared))
    if abs(score) < AGREEMENT:
        return Guess(value=None, confidence=0.0, evidence="red and blue of two cameras are not related enough")
    swapped = {"rgb": "bgr", "bgr": "rgb"}[guess.value]
    return Guess(
        value=guess.value if score > 0 else swapped,
        confidence=0.75,
        evidence=f"episodes with more red in {other} have more {'red' if score > 0 else 'blue'} here "
        f"({len(shared)} episodes, {abs(score):.1f} standard errors)",
        numbers={"standard_errors": float(score), "compared_with": other},
    )


def _shares(stills: Images) -> tuple[float, float]:
    """The share of clearly red and of clearly blue pixels."""
    values = stills.astype(np.int16)
    difference = values[..., 0] - values[..., 2]
    return float((difference > STRONG).mean()), float((difference < -STRONG).mean())


def _by_words(footage: Footage, key: str) -> Guess:
    groups: dict[str, list[float]] = {"red": [], "blue": []}
    for episode, stills in footage.streams[key].stills.items():
        text = footage.instructions.get(episode, "")
        red, blue = bool(RED.search(text)), bool(BLUE.search(text))
        if red != blue and len(stills) > 2:
            groups["red" if red else "blue"].append(_gain(stills))
    sizes = {name: len(values) for name, values in groups.items()}
    if min(sizes.values()) < MIN_EPISODES:
        return Guess(
            value=None,
            confidence=0.0,
            evidence="too few instructions name red or blue",
            numbers={"episodes": sizes},
        )
    means = {name: float(np.mean(values)) for name, values in groups.items()}
    error = float(np.sqrt(sum(np.var(values) / len(values) for values in groups.values())))
    score = (means["red"] - means["blue"]) / max(error, 1e-6)
    numbers = {"episodes": sizes, "gain": means, "standard_errors": score}
    if abs(score) < SIGNIFICANT:
        return Guess(value=None, confidence=0.0, evidence="the colours named do not show", numbers=numbers)
    named, other = ("red", "blue") if score > 0 else ("blue", "red")
    return Guess(
        value="rgb" if score > 0 else "bgr",
        confidence=0.95 if abs(score) > 1.75 * SIGNIFICANT else 0.7,
        evidence=f"as the hand reaches what the instruction calls red, {named} gains on {other} in the image "
        f"({sizes['red']} and {sizes['blue']} episodes, {abs(score):.1f} standard errors)",
        numbers=numbers,
    )


def _gain(stills: Images) -> float:
    """How much the share of red pixels less that of blue ones grows from the first to the last third of an episode."""
    values = stills.astype(np.int16)
    difference = values[..., 0] - values[..., 2]
    balance = (difference > DOMINANT).mean((1, 2)) - (difference < -DOMINANT).mean((1, 2))
    third = max(1, len(stills) // 3)
    return float(balance[-third:].mean() - balance[:third].mean())
