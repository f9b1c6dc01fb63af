"""Proof that nothing else moved: one hash over every number a stage had no business changing."""

import hashlib
import re

from torch import Tensor

from xvla_platform.errors import RefusedError
from xvla_platform.modelling.strategy import is_table
from xvla_platform.modelling.xvla import XVLA


def frozen_digest(model: XVLA, *domain_ids: int, tables_only: bool = False) -> str:
    """sha256 over all weights but rows `domain_ids` of the tables and LoRA matrices.

    Args:
        tables_only: Only the other robots' rows (after full tuning, all that must not have moved).
    """
    digest = hashlib.sha256()
    # peft and an open slot wrap modules; the wrapped weight keeps its bits under another name.
    named = {
        re.sub(r"(\.base_layer|\.table)+\.", ".", name): tensor
        for name, tensor in model.state_dict().items()
        if ".lora_" not in name and not name.endswith(".row")
    }
    for name, tensor in sorted(named.items()):
        table = is_table(name)
        if tables_only and not table:
            continue
        digest.update(name.encode())
        if table:
            tensor = tensor[[row for row in range(len(tensor)) if row not in domain_ids]]
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def assert_unmoved(before: str, after: str, stage: str) -> None:
    """Refuse to register a result whose frozen weights changed."""
    if before != after:
        raise RefusedError(
            f"stage {stage} changed weights that it had frozen; nothing was registered",
            hint="this is a fault of the platform or of an observer plugin; please report it",
        )


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().numpy().tobytes()
