"""Two answers to one question, from names and from numbers, made one: agreement adds up, contradiction is a blank."""

from xvla_platform.measure.guess import LIKELY, Guess

CERTAIN = 0.995
FAINT = 0.3  # below it an answer is no answer, and cannot contradict
CONTRADICTED = 0.45


def combine(first: Guess | None, second: Guess | None) -> Guess:
    """The joint answer; both sentences of evidence are kept."""
    answers = [guess for guess in (first, second) if guess is not None and guess.value is not None]
    answers = [guess for guess in answers if guess.confidence > 0]
    silent = [guess for guess in (first, second) if guess is not None and guess not in answers]
    if not answers:
        evidence = "; ".join(guess.evidence for guess in silent if guess.evidence) or "nothing tells"
        return Guess(value=None, confidence=0.0, evidence=evidence)
    if len(answers) == 1:
        return answers[0]
    best, other = sorted(answers, key=lambda guess: guess.confidence, reverse=True)
    numbers = {**other.numbers, **best.numbers}
    if best.value == other.value:
        doubt = (1 - best.confidence) * (1 - other.confidence)
        return Guess(
            value=best.value,
            confidence=min(CERTAIN, 1 - doubt),
            evidence=best.evidence if other.evidence in best.evidence else f"{best.evidence}; {other.evidence}",
            numbers=numbers,
        )
    if other.confidence < FAINT:
        return best
    # Names and numbers disagree: neither is believed alone, unless one of them was only a convention.
    settled = best.confidence >= CERTAIN - 0.02 and other.confidence < LIKELY
    return Guess(
        value=best.value,
        confidence=LIKELY if settled else min(CONTRADICTED, best.confidence),
        evidence=f"contradiction: {best.value} ({best.evidence}), but {other.value} ({other.evidence})",
        numbers=numbers,
    )


def weakened(guess: Guess, to: float, why: str) -> Guess:
    """The answer with at most the confidence `to`."""
    if guess.confidence <= to:
        return guess
    return Guess(value=guess.value, confidence=to, evidence=f"{guess.evidence}; {why}", numbers=guess.numbers)
