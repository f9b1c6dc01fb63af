"""The words of `xvla check`: rules, findings, and the context that checks look at.

A check module exports `RULES` (a tuple of `Rule`) and `CHECKS` (a tuple of functions from a `CheckContext` to
findings); `register_checks` names it. Built-in codes: XV0xx declaration against dataset, XV1xx numbers and
units, XV2xx actions, rotations and grippers, XV3xx cameras, XV4xx time, episodes and language, XV5xx against
the base and against a trained adaptation. Other plugins choose their own letters.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from xvla_platform.data.reader import DatasetReader
from xvla_platform.errors import XvlaError
from xvla_platform.measure.recording import Recording
from xvla_platform.platform.bases import ResolvedBase
from xvla_platform.specs.action_space import ActionSpace
from xvla_platform.specs.embodiment import EmbodimentSpec

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
GROUPS = {
    "XV0": "declaration against dataset",
    "XV1": "numbers and units",
    "XV2": "rotations, actions and grippers",
    "XV3": "cameras",
    "XV4": "time, language and episodes",
    "XV5": "against the base and a trained adaptation",
}
CODE = re.compile(r"^[A-Z]{2,8}\d{3}$")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a code stands for, in full.

    Attributes:
        code: `XV101`; unique.
        slug: Short name for people: `unit-of-position`.
        title: What is wrong, in one clause.
        why: What the fault does to a trained robot, in a sentence or two.
        fix: What to change, with the YAML to write where there is some.
        severity: The usual severity; a finding may be milder where the measurement is less sure.
    """

    code: str
    slug: str
    title: str
    why: str
    fix: str
    severity: Severity = "error"

    def __post_init__(self) -> None:
        if not CODE.match(self.code):
            raise XvlaError("a rule's code is capital letters and three digits", field="code", found=self.code)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fault in one place.

    Attributes:
        field: Where: `action.rotation`, `cameras.front`, `control_hz`; None for the dataset as a whole.
        measured: What was measured, in one sentence with numbers and units.
        numbers: The measured numbers, for `--json` and plots.
        fix: What to write here, in one line; without it, the rule's own text is shown.
        episodes: The episodes concerned, where it is not all of them.
    """

    code: str
    severity: Severity
    field: str | None
    measured: str
    numbers: dict[str, Any] = dataclasses.field(default_factory=dict)
    fix: str | None = None
    episodes: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CheckContext:
    """All that a check may look at.

    Attributes:
        recording: Low-dimensional numbers of a sample of episodes.
        base: The base to be adapted, with its action `space`; both None where none is named.
        split: `train`, `validation` and `test` to episode indices.
        plugin_folder: Folder of `plugin.yaml` and of the files it names.
        against: Folder of a trained adaptation to compare with.
        facts: What checks measured, for the report; a check may add to it under its own key.
        verified: The dataset was already found to hold what is declared, so structural checks are not repeated.
        quick: Registration is waiting: look at few frames.
    """

    spec: EmbodimentSpec
    reader: DatasetReader
    recording: Recording
    base: ResolvedBase | None = None
    space: ActionSpace | None = None
    split: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    plugin_folder: Path | None = None
    against: Path | None = None
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    verified: bool = False
    quick: bool = False


Check = Callable[[CheckContext], Iterator[Finding]]


@dataclass(frozen=True, kw_only=True)
class CheckGroup:
    """Rules with the checks that find them, as `register_checks` contributes them."""

    name: str
    rules: tuple[Rule, ...]
    checks: tuple[Check, ...]


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """Everything found, worst first, and what was looked at."""

    findings: tuple[Finding, ...]
    facts: dict[str, Any]
    rules: Mapping[str, Rule]

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == severity)

    def without(self, codes: tuple[str, ...]) -> "CheckReport":
        """The same report without the findings of these codes."""
        kept = tuple(finding for finding in self.findings if finding.code not in codes)
        return CheckReport(findings=kept, facts=self.facts, rules=self.rules)

    def to_json(self) -> dict[str, Any]:
        """The report as plain values, each finding with its rule's words."""
        return {
            "schema_version": 1,
            "counts": {severity: len(self.of(severity)) for severity in SEVERITIES},
            "findings": [_as_json(finding, self.rules[finding.code]) for finding in self.findings],
            "facts": plain(self.facts),
        }


def plain(value: Any) -> Any:
    """A value as JSON knows it: numpy numbers and arrays become numbers and lists, NaN becomes null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def _as_json(finding: Finding, rule: Rule) -> dict[str, Any]:
    return {
        "code": finding.code,
        "slug": rule.slug,
        "severity": finding.severity,
        "field": finding.field,
        "title": rule.title,
        "measured": finding.measured,
        "why": rule.why,
        "fix": finding.fix or rule.fix,
        "episodes": list(finding.episodes),
        "numbers": plain(finding.numbers),
    }
