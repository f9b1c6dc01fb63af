"""Checkpoints of a running stage: parameters, Adam moments and position, as safetensors and JSON.

A snapshot is a folder that appears at once or not at all; the newest readable one is resumed, a damaged one is
passed over. All randomness of a step is derived from (seed, stage, step, rank), so there is no generator state to
keep and a resumed run repeats the uninterrupted one bit for bit.
"""

import contextlib
import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from xvla_platform.adapt.trainables import Trainable
from xvla_platform.platform.files import atomic_folder, sha256_file, write_text

log = logging.getLogger(__name__)
KEEP = 2
_NAME = re.compile(r"^stage-(\d+)-step-(\d+)$")


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What a resumed stage starts from.

    Attributes:
        stage: Index of the stage in the plan.
        step: Steps already taken.
        state: Whatever the loop recorded (best error so far, …).
        current, best, average: Parameters by name. moments: `<name>.exp_avg`, `<name>.exp_avg_sq`, `<name>.step`.
    """

    stage: int
    step: int
    state: dict[str, Any]
    current: dict[str, Tensor]
    best: dict[str, Tensor]
    average: dict[str, Tensor]
    moments: dict[str, Tensor]


def save_snapshot(
    folder: Path,
    *,
    stage: int,
    step: int,
    state: Mapping[str, Any],
    trainables: list[Trainable],
    best: Mapping[str, Tensor],
    average: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> Path:
    """Write `folder/stage-S-step-N/` atomically and drop all but the newest two."""
    final = folder / f"stage-{stage}-step-{step:08d}"
    tensors = {f"current/{t.name}": t.parameter.detach().cpu().contiguous() for t in trainables}
    for part, values in (("best", best), ("average", average)):
        tensors |= {f"{part}/{name}": tensor.cpu().contiguous() for name, tensor in values.items()}
    for trainable in trainables:
        for key, value in optimizer.state.get(trainable.parameter, {}).items():
            kept = torch.as_tensor(value).detach().cpu().contiguous()
            # The tables of one-byte moments are one tensor for all parameters.
            tensors[f"moments/{trainable.name}.{key}"] = kept.clone() if key.startswith("qmap") else kept
    # One of that step may exist already: damaged, so that the run went on from the one before it.
    with atomic_folder(final, replace=True) as build:
        save_file(tensors, build / "tensors.safetensors")
        record = {
            "schema_version": 1,
            "stage": stage,
            "step": step,
            "state": dict(state),
            "sha256": sha256_file(build / "tensors.safetensors"),
        }
        write_text(build / "state.json", json.dumps(record, indent=2, sort_keys=True) + "\n")
    for old in snapshots(folder)[:-KEEP]:
        with contextlib.suppress(OSError):
            shutil.rmtree(old)
    return final


def snapshots(folder: Path) -> list[Path]:
    """Snapshot folders, oldest first."""
    found = ((_NAME.match(path.name), path) for path in folder.glob("stage-*-step-*") if path.is_dir())
    numbered = {path: (int(match[1]), int(match[2])) for match, path in found if match}
    return sorted(numbered, key=lambda path: numbered[path])


def load_newest(folder: Path) -> Snapshot | None:
    """The newest snapshot that is whole; damaged ones are reported and passed over."""
    for path in reversed(snapshots(folder)):
        try:
            record = json.loads((path / "state.json").read_text(encoding="utf-8"))
            if sha256_file(path / "tensors.safetensors") != record["sha256"]:
                raise ValueError("tensors.safetensors does not match its hash")
            tensors = load_file(path / "tensors.safetensors")
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            log.warning("checkpoint %s is damaged (%s); using the one before", path.name, error)
            continue
        parts: dict[str, dict[str, Tensor]] = {"current": {}, "best": {}, "average": {}, "moments": {}}
        for key, tensor in tensors.items():
            part, _, name = key.partition("/")
            parts[part][name] = tensor
        return Snapshot(stage=record["stage"], step=record["step"], state=record["state"], **parts)
    return None


@torch.no_grad()
def restore(snapshot: Snapshot, trainables: list[Trainable], optimizer: torch.optim.Optimizer) -> None:
    """Put parameters and moments back into a freshly built stage."""
    # A fused optimiser counts its steps beside the parameter, the others on the CPU.
    counted_there = {
        id(parameter)
        for group in optimizer.param_groups
        if group.get("fused") or group.get("capturable")
        for parameter in group["params"]
    }
    for trainable in trainables:
        trainable.parameter.copy_(snapshot.current[trainable.name])
        device, there = trainable.parameter.device, id(trainable.parameter) in counted_there
        prefix = f"{trainable.name}."
        state: dict[str, Any] = {
            key.removeprefix(prefix): value.to(device if key != f"{prefix}step" or there else "cpu")
            for key, value in snapshot.moments.items()
            if key.startswith(prefix) and "." not in key.removeprefix(prefix)
        }
        if "state1" in state:  # moments of one byte count their steps as a plain number
            state["step"] = int(state["step"])
        if state:
            optimizer.state[trainable.parameter] = state
