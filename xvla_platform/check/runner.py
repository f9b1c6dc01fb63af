"""Running every check over one declaration and its dataset.

In: a `CheckContext` and a plugin manager. Out: a `CheckReport`. A check that cannot read the data reports it
as a finding; a check that is itself at fault keeps its traceback, for then it is a bug.
"""

from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

import pluggy

from xvla_platform.check.findings import (
    SEVERITIES,
    Check,
    CheckContext,
    CheckGroup,
    CheckReport,
    Finding,
    Rule,
)
from xvla_platform.check.structure import RULES as STRUCTURE
from xvla_platform.check.structure import code_of_error
from xvla_platform.errors import XvlaError
from xvla_platform.platform.hookspecs import Factory
from xvla_platform.platform.plugins import build_manager, contributions

WITHOUT_NUMBERS = ("structure", "language")


def check_groups(manager: pluggy.PluginManager | None = None) -> tuple[CheckGroup, ...]:
    """Every group of rules and checks in force, built-in ones first; a code given twice is an error."""
    items = contributions(manager or build_manager(), "register_checks")
    groups = tuple(_group(name, item) for name, item in sorted(items.items(), key=lambda pair: _builtin_first(*pair)))
    owner: dict[str, str] = {}
    for group in groups:
        for rule in group.rules:
            if rule.code in owner:
                raise XvlaError(
                    f"check code {rule.code} is used twice",
                    found=f"{owner[rule.code]} and {group.name}",
                    hint="other plugins choose their own letters, as in ACME101",
                )
            owner[rule.code] = group.name
    return groups


def catalogue(manager: pluggy.PluginManager | None = None) -> dict[str, Rule]:
    """Code to rule of every check in force, in the order of the codes."""
    rules = [rule for group in check_groups(manager) for rule in group.rules]
    return {rule.code: rule for rule in sorted(rules, key=lambda rule: (not rule.code.startswith("XV"), rule.code))}


def run_checks(
    context: CheckContext,
    progress: Callable[[int], None] | None = None,
    *,
    groups: Iterable[CheckGroup] | None = None,
) -> CheckReport:
    """Run the checks and sort what they find, worst first, then by code.

    Args:
        progress: Called with 1 after each group of checks.
        groups: The checks to run; without it, those of the installed plugins and of `context.plugin_folder`.
    """
    if groups is None:
        groups = check_groups(build_manager(context.plugin_folder))
    groups = tuple(groups)
    found: list[Finding] = []
    rules = {rule.code: rule for rule in (*STRUCTURE, *(rule for group in groups for rule in group.rules))}
    for group in groups:
        # Without a single readable episode only the structure has something to say.
        if context.recording.episodes or group.name in WITHOUT_NUMBERS:
            for check in group.checks:
                found += _run(check, context, group, rules)
        if progress is not None:
            progress(1)
    found.sort(key=lambda finding: (SEVERITIES.index(finding.severity), finding.code, finding.field or ""))
    facts: dict[str, Any] = {
        "embodiment": context.spec.name,
        "dataset": str(context.reader.root),
        "episodes": len(context.reader.episodes),
        "episodes_read": len(context.recording.episodes),
        "frames_read": sum(episode.length for episode in context.recording.episodes),
        "hz": context.recording.hz,
        "base": None if context.base is None else context.base.id,
        **context.facts,
    }
    return CheckReport(findings=tuple(found), facts=facts, rules=rules)


def _run(check: Check, context: CheckContext, group: CheckGroup, rules: Mapping[str, Rule]) -> list[Finding]:
    found = []
    try:
        for finding in check(context):
            if finding.code not in rules:
                raise ValueError(f"check group '{group.name}' reports {finding.code}, which no rule explains")
            found.append(finding)
    except XvlaError as error:
        code = code_of_error(error)
        found.append(Finding(code=code, severity="error", field=error.field, measured=str(error), fix=error.hint))
    return found


def _group(name: str, item: Any) -> CheckGroup:
    loaded = item.load() if isinstance(item, Factory) else item
    if isinstance(loaded, CheckGroup):
        return loaded
    if isinstance(loaded, ModuleType) and hasattr(loaded, "RULES") and hasattr(loaded, "CHECKS"):
        return CheckGroup(name=name, rules=tuple(loaded.RULES), checks=tuple(loaded.CHECKS))
    raise XvlaError(
        "is no group of checks",
        field=f"register_checks: {name}",
        found=type(loaded).__name__,
        allowed="a CheckGroup, or a module with RULES and CHECKS",
    )


def _builtin_first(name: str, item: Any) -> tuple[bool, str]:
    target = getattr(item, "target", None)
    return not (isinstance(target, str) and target.startswith("xvla_platform.check.")), name
