"""What an evaluation found, per condition and task: success with its interval, time, and what was approached.

In: episodes. Out: values for tables and `results.json`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xvla_platform.closed_loop.episode import Episode
from xvla_platform.closed_loop.intervals import median, wilson

OVERALL = "all tasks"


@dataclass(frozen=True, kw_only=True)
class Share:
    """`count` of `of` episodes, with Wilson's 95 % interval; `rate` is None of none."""

    count: int
    of: int

    @property
    def rate(self) -> float | None:
        return self.count / self.of if self.of else None

    @property
    def interval(self) -> tuple[float, float] | None:
        return wilson(self.count, self.of) if self.of else None

    def text(self) -> str:
        """`41/50  82 % (69-90)`."""
        if self.rate is None or self.interval is None:
            return "not known"
        low, high = self.interval
        return f"{self.count}/{self.of}  {100 * self.rate:.0f} % ({100 * low:.0f}-{100 * high:.0f})"

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"count": self.count, "of": self.of, "rate": self.rate, "interval_95": self.interval}


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One condition on one task, or on all of them.

    Attributes:
        approached: Episodes in which the hand went for the named object, of those where that is known.
        completed_of_approached: Successes among them.
        median_s: Median time of the successes.
    """

    success: Share
    approached: Share
    completed_of_approached: Share
    median_s: float | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "success": self.success.as_dict(),
            "approached": self.approached.as_dict(),
            "completed_of_approached": self.completed_of_approached.as_dict(),
            "median_seconds_to_success": self.median_s,
        }


@dataclass(frozen=True, kw_only=True)
class ClosedLoopResult:
    """Every episode of an evaluation, sorted, with what it was run with."""

    settings: Mapping[str, Any]
    episodes: tuple[Episode, ...]

    @property
    def conditions(self) -> list[str]:
        """Names in the order in which they were asked for."""
        return list(self.settings["conditions"])

    @property
    def tasks(self) -> list[str]:
        return list(self.settings["tasks"])

    def of(self, condition: str, task: str | None = None) -> list[Episode]:
        """Episodes of a condition, on one task or on all."""
        return [e for e in self.episodes if e.condition == condition and task in (None, e.task)]

    def summary(self, condition: str = "own", task: str | None = None) -> Summary:
        """The numbers of a condition, on one task or on all."""
        return summarise(self.of(condition, task))

    @property
    def cost(self) -> dict[str, float]:
        """Mean CPU seconds an episode by what they were spent on."""
        labels = dict.fromkeys(label for episode in self.episodes for label in episode.cost)
        count = max(1, len(self.episodes))
        return {label: sum(e.cost.get(label, 0.0) for e in self.episodes) / count for label in labels}

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as in `results.json`."""
        return {
            "schema_version": 1,
            "settings": dict(self.settings),
            "results": {
                condition: {
                    **{task: self.summary(condition, task).as_dict() for task in self.tasks},
                    OVERALL: self.summary(condition).as_dict(),
                }
                for condition in self.conditions
            },
            "cpu_seconds_an_episode": {label: round(seconds, 3) for label, seconds in self.cost.items()},
        }


def summarise(episodes: Sequence[Episode]) -> Summary:
    """The numbers of some episodes."""
    known = [e for e in episodes if e.approached is not None]
    approached = [e for e in known if e.approached]
    return Summary(
        success=Share(count=sum(e.success for e in episodes), of=len(episodes)),
        approached=Share(count=len(approached), of=len(known)),
        completed_of_approached=Share(count=sum(e.success for e in approached), of=len(approached)),
        median_s=median([e.seconds for e in episodes if e.success]),
    )
