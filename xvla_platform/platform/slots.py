"""Prompt slots: which row of the base's per-domain tables a robot gets.

In: the base, the workspace, the robot's name, and optionally the domain id that is wished for. Out: a
`PromptSlot` that neither the base's pretraining nor another robot of the workspace uses; the tables grow by
one row when all are taken.
"""

from xvla_platform.errors import XvlaError
from xvla_platform.platform.bases import ResolvedBase
from xvla_platform.platform.records import registered
from xvla_platform.platform.workspace import Workspace
from xvla_platform.specs.records import PromptSlot


def allocate_slot(base: ResolvedBase, workspace: Workspace, name: str, requested: int | None = None) -> PromptSlot:
    """The slot of robot `name` on `base`; one that it already has is kept, unless another is requested."""
    holders = {domain: f"{label} (pretraining of {base.id})" for domain, label in base.used_domains.items()}
    own: int | None = None
    for record in registered(workspace):
        if record.base.fingerprint != base.fingerprint:
            continue
        if record.spec.name == name:
            own = record.slot.domain_id
        else:
            holders[record.slot.domain_id] = f"robot {record.spec.name}"
    free = _free(base.num_domains, holders)
    if requested is None:
        domain = own if own is not None and own not in holders else free[0]
    elif requested in holders:
        raise XvlaError(
            f"domain id {requested} is taken by {holders[requested]}",
            field="domain_id",
            allowed=f"free: {_ranges(free)}",
        )
    elif requested not in free:
        raise XvlaError(
            f"domain id {requested} is beyond the tables of {base.id} ({base.num_domains} rows)",
            field="domain_id",
            allowed=f"free: {_ranges(free)}",
        )
    else:
        domain = requested
    return PromptSlot(domain_id=domain, num_domains=max(base.num_domains, domain + 1))


def _free(num_domains: int, holders: dict[int, str]) -> list[int]:
    """Free rows in order; where none is left, the one row by which the tables would grow."""
    free = [domain for domain in range(num_domains) if domain not in holders]
    return free or [max([num_domains - 1, *holders]) + 1]


def _ranges(numbers: list[int]) -> str:
    """`19-29, 31` for a sorted list of ids."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
