"""One robot's rows of the per-domain tables, as the only trainable numbers.

Which tables there are is the strategy's business (`strategy.py`); the published model has five. While a slot is open,
each table answers for its domain from a small parameter of its own; the tables themselves stay frozen, so no other
robot's row can get a gradient, a moment or weight decay. Closing writes the rows back.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xvla_platform.modelling.domain import PROMPT_STD, row_bound
from xvla_platform.modelling.strategy import slot_tables
from xvla_platform.modelling.xvla import XVLA

SLOT_MODULES = slot_tables("soft_prompt")  # of the published model; of any model: `model.config.slot_tables`


class OpenTable(nn.Module):
    """A frozen table with one row replaced by a trainable parameter."""

    def __init__(self, table: nn.Module, domain_id: int) -> None:
        super().__init__()
        self.table = table
        self.domain_id = domain_id
        self.row = nn.Parameter(self.weight.data[domain_id].clone())

    @property
    def weight(self) -> Tensor:
        weight: Tensor = self.table.weight  # type: ignore[assignment]
        return weight

    def forward(self, domain_id: Tensor) -> Tensor:
        """domain_id [B] → rows [B, D]; no host synchronisation, whichever domain is asked for."""
        rows = self.table(domain_id)  # another open table where several slots are open
        return torch.where((domain_id == self.domain_id).unsqueeze(-1), self.row, rows)


@dataclass(frozen=True, kw_only=True)
class OpenSlot:
    """Handle of an open slot; `rows` maps the table's module name to its trainable row."""

    domain_id: int
    tables: Mapping[str, OpenTable]

    @property
    def rows(self) -> dict[str, nn.Parameter]:
        return {name: table.row for name, table in self.tables.items()}


def open_slot(model: XVLA, domain_id: int) -> OpenSlot:
    """Make domain `domain_id`'s rows trainable and nothing else of the tables.

    Several may be open; they are closed in the reverse order.
    """
    tables: dict[str, OpenTable] = {}
    for name in model.config.slot_tables:
        parent, last = _parent(model, name)
        table = OpenTable(getattr(parent, last), domain_id)
        table.weight.requires_grad_(False)
        setattr(parent, last, table)
        tables[name] = table
    return OpenSlot(domain_id=domain_id, tables=tables)


@torch.no_grad()
def close_slot(model: XVLA, slot: OpenSlot) -> None:
    """Write the rows into the tables and put plain tables back."""
    for name, table in slot.tables.items():
        table.weight[slot.domain_id] = table.row
        parent, last = _parent(model, name)
        setattr(parent, last, table.table)


def _parent(model: XVLA, name: str) -> tuple[nn.Module, str]:
    path, _, last = name.rpartition(".")
    return model.get_submodule(path), last


def table(model: XVLA, name: str) -> Tensor:
    """The weight of a per-domain table [num_domains, D], by module name."""
    weight = model.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    return weight


def read_rows(model: XVLA, domain_id: int) -> dict[str, Tensor]:
    """Copies of a domain's rows, by table module name."""
    return {name: table(model, name).data[domain_id].clone() for name in model.config.slot_tables}


@torch.no_grad()
def write_rows(model: XVLA, domain_id: int, rows: Mapping[str, Tensor]) -> None:
    """Overwrite a domain's rows."""
    for name in model.config.slot_tables:
        weight = table(model, name)
        weight[domain_id] = rows[name].to(weight)


def mean_rows(model: XVLA, domain_ids: list[int]) -> dict[str, Tensor]:
    """Mean of several domains' rows."""
    every = [read_rows(model, domain) for domain in domain_ids]
    return {name: torch.stack([rows[name] for rows in every]).mean(0) for name in every[0]}


def random_rows(model: XVLA, seed: int) -> dict[str, Tensor]:
    """Rows as a fresh base has them: prompts and queries N(0, 0.02), linears Xavier, biases zero."""
    generator = torch.Generator().manual_seed(seed)
    rows: dict[str, Tensor] = {}
    for name in model.config.slot_tables:
        count, size = table(model, name).shape
        if name.endswith((".soft_prompt_hub", ".queries")):
            rows[name] = torch.randn(size, generator=generator) * PROMPT_STD
        elif name.endswith(".fc"):
            width = 2 * model.config.hidden_size
            bound = row_bound(size // width, width) if ".key_value." in name else (6 / (count + size)) ** 0.5
            rows[name] = (torch.rand(size, generator=generator) * 2 - 1) * bound
        else:
            rows[name] = torch.zeros(size)
    return rows
