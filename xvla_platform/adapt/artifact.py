"""From a finished run to a sealed version folder in the registry.

Writes a standard PEFT adapter with the contract, statistics, plan, metrics, pictures and card beside it, then
loads the folder as any user would and compares chunks: what cannot be reproduced is not registered.
"""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from xvla_platform import __version__
from xvla_platform.adapt.features import ENCODE_BATCH, encode_batch
from xvla_platform.adapt.initialise import Initialisation
from xvla_platform.adapt.robot_data import Split
from xvla_platform.adapt.run import StageResult
from xvla_platform.adapt.sources import frames_of
from xvla_platform.data.binding import Binding
from xvla_platform.errors import RefusedError
from xvla_platform.evaluation.plots import plot_curves, plot_trajectories
from xvla_platform.modelling.checkpoint import save_model
from xvla_platform.modelling.precision import device_label
from xvla_platform.modelling.processor import Processor
from xvla_platform.modelling.slot import read_rows
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.platform.artifact import MANIFEST_NAME, seal
from xvla_platform.platform.bases import ResolvedBase
from xvla_platform.platform.card import model_card
from xvla_platform.platform.files import write_json, write_text
from xvla_platform.platform.records import RECORD_NAME, record_text
from xvla_platform.platform.registry import Adaptation, now, place
from xvla_platform.platform.workspace import Workspace
from xvla_platform.policy.adapter import Adapter, lora_state, write_adapter
from xvla_platform.policy.example import Example, save_example
from xvla_platform.policy.policy import Observation, Policy, load_policy
from xvla_platform.specs.plan import AdaptationPlan
from xvla_platform.specs.records import EmbodimentRecord, Manifest, SweepCell

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "numpy")
SHOWN_FRAMES = 4


@dataclass(frozen=True, kw_only=True)
class Finished:
    """All that a finished run leaves behind.

    Attributes:
        results: Test error by policy name and action field.
        unadapted, adapted: Predicted test chunks [n, T, dim].
        lines: The run's measurements of this robot, one dict a step.
        stages: What each stage left.
        trained_with: Robots of the same run. sweep: The cell of a sweep that the run is.
        eval_seed: Seed of the noise behind `results`.
    """

    record: EmbodimentRecord
    base: ResolvedBase
    plan: AdaptationPlan
    model: XVLA
    processor: Processor
    binding: Binding
    statistics: Mapping[str, Any]
    test: Split
    results: Mapping[str, Mapping[str, float]]
    unadapted: NDArray[np.float32]
    adapted: NDArray[np.float32]
    initial: Initialisation
    lines: Sequence[Mapping[str, Any]]
    stages: Sequence[StageResult]
    eval_seed: int
    trained_with: tuple[str, ...] = ()
    sweep: SweepCell | None = None

    @property
    def tuning(self) -> Literal["prompt", "lora", "full"]:
        """What the adaptation holds beyond the slot."""
        if any({"transformer_core", "vlm"} & set(stage.lr) for stage in self.plan.stages):
            return "full"
        return "lora" if any(stage.lora for stage in self.plan.stages) else "prompt"


def register(
    workspace: Workspace, done: Finished, sealed: Callable[[int, Path], None] = lambda number, folder: None
) -> Adaptation:
    """Place the next version of the robot's adaptation, or refuse without a trace.

    Args:
        sealed: Called with the number and the complete folder just before it appears in the registry.
    """

    def build(folder: Path, number: int) -> None:
        _write(folder, done)
        manifest = _manifest(done, number)
        write_json(folder / MANIFEST_NAME, manifest.model_dump(mode="json"))
        save_example(folder, _example(done, _reloaded(folder, done)))
        write_text(folder / "README.md", model_card(manifest, done.record, metrics(done)))
        seal(folder, manifest)
        sealed(number, folder)

    return place(workspace, done.record.spec.name, build)


def metrics(done: Finished) -> dict[str, Any]:
    """`metrics.json`: the table, its units and what it was measured on."""
    return {
        "schema_version": 1,
        "table": [{"policy": name, "errors": dict(errors)} for name, errors in done.results.items()],
        "units": done.binding.error_units(),
        "test_episodes": len(done.test.episodes),
        "test_frames": len(done.test.samples),
        "eval_seed": done.eval_seed,
        "device": device_label(next(done.model.parameters()).device),
        "initialisation": asdict(done.initial),
        "stages": [_stage(result, done.record.spec.name) for result in done.stages],
    }


def _stage(result: StageResult, robot: str) -> dict[str, Any]:
    """A stage in `metrics.json`: what was kept of it, and the proof that the rest did not move."""
    return {
        "stage": result.name,
        "validation_error": result.best_error[robot],
        "kept_step": result.best_step[robot],
        "bit_identical": result.frozen,
        "sha256": result.frozen_sha256,
    }


def _write(folder: Path, done: Finished) -> None:
    domain = done.record.slot.domain_id
    lora_spec = next((stage.lora for stage in done.plan.stages if stage.lora is not None), None)
    adapter = Adapter(
        domain_id=domain, rows=read_rows(done.model, domain), lora=lora_state(done.model), lora_spec=lora_spec
    )
    write_adapter(folder, adapter, done.record.base)
    if done.tuning == "full":
        save_model(done.model, folder)
    write_text(folder / RECORD_NAME, record_text(done.record))
    write_json(folder / "stats.json", done.statistics)
    for name, text in done.binding.conventions.files.items():
        write_text(folder / name, text)
    write_json(folder / "metrics.json", metrics(done))
    write_text(folder / "plan.yaml", yaml.safe_dump(done.plan.model_dump(mode="json"), sort_keys=False))
    _draw(folder, done)


def _draw(folder: Path, done: Finished) -> None:
    count = len(done.test.samples)
    chosen = np.unique(np.linspace(0.05 * count, 0.85 * count, SHOWN_FRAMES).astype(int))
    name = done.record.spec.name
    plot_trajectories(
        folder / "trajectories.png",
        done.binding,
        target=done.test.source.action.numpy()[chosen],
        predicted=done.adapted[chosen],
        unadapted=done.unadapted[chosen],
        images=list(done.test.samples.images(chosen)[0]),
        title=f"{name}: predicted against recorded, held-out episodes",
        horizon_s=done.record.spec.horizon_s,
    )
    plot_curves(folder / "curves.png", done.lines, title=f"{name}: training")


def _example(done: Finished, policy: Policy) -> Example:
    """The first test observation at the model's image size, with the chunk that the written adapter answers."""
    views = done.test.samples.images([0], as_recorded=True)
    cameras = [camera.name for camera in done.record.spec.ordered_cameras]
    observation = Observation(
        images={name: done.processor.resize(view[0]) for name, view in zip(cameras, views, strict=True)},
        state=done.test.samples.raw_state([0])[0],
        instruction=done.test.samples.instruction(0),
    )
    policy.reset()
    chunk = policy.act(observation, seed=done.eval_seed).model
    return Example(observation=observation, seed=done.eval_seed, chunk=chunk)


def _manifest(done: Finished, number: int) -> Manifest:
    return Manifest(
        embodiment=done.record.spec.name,
        version=number,
        created=now(),
        tuning=done.tuning,
        base=done.record.base,
        slot=done.record.slot,
        data=done.record.data,
        seed=done.plan.seed,
        trained_with=done.trained_with,
        sweep=done.sweep,
        git=_git_state(),
        versions={"xvla-platform": __version__, **{name: library_version(name) for name in LIBRARIES}},
        files={},
    )


def _reloaded(folder: Path, done: Finished) -> Policy:
    """Load the folder as a user would; the same observations must give the same chunks, bit for bit."""
    policy = load_policy(folder, base=done.base, device=next(done.model.parameters()).device)
    source = done.test.source
    assert source.features is not None
    rows = np.arange(min(ENCODE_BATCH, len(source)))
    frames = frames_of(done.test.samples, policy.processor, rows)
    again_features = encode_batch(policy.model, frames, source.tokens[source.instruction_of[rows]], policy.processor)
    for was, now_ in zip(source.features, again_features, strict=True):
        if not torch.equal(was[: len(rows)], now_.to(was.dtype)):
            raise RefusedError("the written adaptation encodes images differently from the trained one", file=folder)
    again = policy.chunks_from_features(source.features, source.proprio, seed=done.eval_seed)
    if not np.array_equal(again, done.adapted):
        difference = float(np.abs(again - done.adapted).max())
        raise RefusedError(
            f"the written adaptation does not reproduce the trained one (largest difference {difference:.1e})",
            file=folder,
        )
    return policy


def _git_state() -> str | None:
    """Commit of the checkout the command ran in, if any, with `+` for uncommitted changes."""
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
        dirty = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if dirty.stdout.strip() else "")
