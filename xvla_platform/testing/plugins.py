"""The promises of a robot's plugin folder, held without its recordings (which may lie elsewhere).

In: a folder with `plugin.yaml`. Out: nothing, or a `NotConformantError`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from xvla_platform.data.binding import SIX_D, Binding
from xvla_platform.data.conventions import Conventions
from xvla_platform.data.kinematics import Chain
from xvla_platform.data.reader import DatasetInfo, Episode, FeatureInfo, FloatArray, Images
from xvla_platform.data.statistics import compute_statistics
from xvla_platform.data.vectors import split_vector
from xvla_platform.errors import XvlaError
from xvla_platform.platform.plugins import build_manager, load_plugin
from xvla_platform.specs.action_space import SPACES, ActionSpace, action_space
from xvla_platform.specs.embodiment import EmbodimentSpec, KinematicsSpec
from xvla_platform.specs.fields import ActionFieldSpec, FieldSpec
from xvla_platform.testing.conformance import NotConformantError, promised, require
from xvla_platform.testing.faults.recode import encode

LENGTH = 12
AUTO_DIM = 32


def assert_plugin_conformant(folder: str | Path, *, space: str | None = None, data: bool = False) -> EmbodimentSpec:
    """Hold every promise of a plugin folder; the declaration is given back.

    Args:
        space: The action space that the robot is for; without it, the declared one, else any that its fields fit.
        data: Also open the recordings and hold the declaration against every frame's numbers, as registration does.
    """
    folder = Path(folder).resolve()
    with promised("KIT101", folder):
        spec = load_plugin(folder).spec
    require("KIT102", folder.name == spec.name, f"folder {folder.name}, robot {spec.name}", folder)
    readme = folder / "README.md"
    words = readme.read_text(encoding="utf-8").split() if readme.is_file() else []
    require("KIT103", len(words) >= 10, f"{len(words)} words" if words else "no README.md", folder)
    with promised("KIT107", folder):
        build_manager(folder)
    chosen = _space(spec, folder, space)
    for layout in SIX_D:
        _check_binding(spec, chosen, layout, folder)
    if data:
        from xvla_platform.data.verify import check_dataset
        from xvla_platform.platform.embodiments import open_data

        with promised("KIT108", folder):
            check_dataset(open_data(spec, folder), spec, plugin=folder / "plugin.yaml")
    return spec


def _space(spec: EmbodimentSpec, folder: Path, wanted: str | None) -> ActionSpace:
    wanted = wanted or spec.action.space
    reasons = []
    for name in [wanted] if wanted else list(SPACES):
        with promised("KIT104", folder):
            space = action_space(name, dim=AUTO_DIM, real_dim=AUTO_DIM)
        plain = spec.model_dump(mode="json")
        for vector in ("proprio", "action"):
            for field in plain[vector]["fields"]:
                field["normalization"] = "none"
        try:
            Binding(EmbodimentSpec.model_validate(plain), space, SIX_D[0], folder=folder)
        except XvlaError as error:
            reasons.append(f"{name}: {error}")
            continue
        return space
    raise NotConformantError("KIT104", "; ".join(reasons), folder)


def _check_binding(spec: EmbodimentSpec, space: ActionSpace, layout: str, folder: Path) -> None:
    """Synthetic episodes of the declared conventions through the binding and back."""
    sample = _Sample.of(spec, folder)
    with promised("KIT105", folder):
        statistics = compute_statistics(sample, spec, conventions=Conventions(spec, space, folder))
        binding = Binding(spec, space, layout, statistics, folder=folder)
        for states, actions in zip(sample.states, sample.actions, strict=True):
            proprio, chunk = binding.proprio(states), binding.encode(binding.targets(states, actions))
            for name, values, mask in (
                ("proprio", proprio, binding.proprio_mask),
                ("action", chunk, binding.action_mask),
            ):
                require("KIT105", values.shape == (LENGTH, space.dim), f"{name} {values.shape}", folder)
                require("KIT105", np.isfinite(values).all(), f"{name} is not finite", folder)
                require("KIT105", not values[:, ~mask].any(), f"{name} has numbers outside its mask", folder)
    with promised("KIT106", folder):
        for states, actions in zip(sample.states, sample.actions, strict=True):
            chunk = binding.encode(binding.targets(states, actions))
            back = np.stack(
                [binding.to_columns(chunk[row : row + 1], states[row], states[0])[0] for row in range(LENGTH)]
            )
            require("KIT106", back.shape == actions.shape, f"{back.shape} for {actions.shape}", folder)
            _require_same(spec, actions, back, folder)
            again = binding.encode(binding.targets(states, back))
            off = float(np.abs(again - chunk).max())
            require("KIT106", off < 2e-3, f"the model vector differs by {off:.2g} after a round trip", folder)


def _require_same(spec: EmbodimentSpec, actions: FloatArray, back: FloatArray, folder: Path) -> None:
    """Numbers that have one writing only: all but rotations, and joints found by inverse kinematics."""
    arms = {kinematics.arm for kinematics in spec.kinematics}
    for field, columns in zip(spec.action.fields, spec.action.slices().values(), strict=True):
        if field.kind == "rotation" or (field.kind == "joint" and field.arm in arms):
            continue
        expected = actions[:, columns] if field.kind != "ignored" else np.full((LENGTH, field.size), field.value)
        off = np.abs(back[:, columns] - expected).max() / max(1e-9, float(np.abs(expected).max()))
        require("KIT106", off < 1e-3, f"action.{field.name} differs by {off:.2g} of its size", folder)


@dataclass(kw_only=True)
class _Sample:
    """Two synthetic episodes as a dataset in memory.

    Attributes:
        states, actions: Per episode, [LENGTH, P] and [LENGTH, A] in recorded units.
    """

    spec: EmbodimentSpec
    root: Path
    info: DatasetInfo
    episodes: list[Episode]
    states: list[FloatArray]
    actions: list[FloatArray]

    @classmethod
    def of(cls, spec: EmbodimentSpec, folder: Path) -> "_Sample":
        random = np.random.default_rng(0)
        states = [_numbers(spec.proprio.fields, random) for _ in range(2)]
        actions = [_numbers(spec.action.fields, random) for _ in range(2)]
        for kinematics in spec.kinematics:
            for state, action in zip(states, actions, strict=True):
                _within_reach(spec, kinematics, folder, state, action, random)
        widths = {key: sum(f.size for f in fields) for key, fields in spec.proprio.columns().items()}
        widths |= {key: sum(f.size for f in fields) for key, fields in spec.action.columns().items()}
        features = {key: FeatureInfo(dtype="float64", shape=(width,)) for key, width in widths.items()}
        return cls(
            spec=spec,
            root=Path(f"synthetic numbers of {spec.name}"),
            info=DatasetInfo(fps=spec.control_hz, features=features, episodes=2, frames=2 * LENGTH),
            episodes=[Episode(index=index, length=LENGTH, instruction="move") for index in range(2)],
            states=states,
            actions=actions,
        )

    def columns(self, episode: int, keys: Sequence[str]) -> dict[str, FloatArray]:
        """Every column of both vectors, float64 [L, D]."""
        action = split_vector(self.spec.action, self.actions[episode])
        return {**action, **split_vector(self.spec.proprio, self.states[episode])}

    def timestamps(self, episode: int) -> FloatArray:
        """[L] in seconds."""
        return np.arange(LENGTH) / self.spec.control_hz

    def frames(self, episode: int, key: str, indices: Sequence[int] | NDArray[Any]) -> Images:
        """There are no cameras."""
        raise XvlaError("has no camera", file=self.root, field=key)

    def fingerprint(self) -> str:
        """No files, no digest."""
        return "0" * 64


def _within_reach(
    spec: EmbodimentSpec,
    kinematics: KinematicsSpec,
    folder: Path,
    state: FloatArray,
    action: FloatArray,
    random: np.random.Generator,
) -> None:
    """Put joints in place that the arm can have, and commands near them: other poses have no way back to joints."""
    chain = Chain(kinematics, folder)
    low, high = np.maximum(chain.low, -np.pi), np.minimum(chain.high, np.pi)
    joints = (low + high) / 2 + random.uniform(-0.2, 0.2, (LENGTH, len(low))) * (high - low)
    commands = np.clip(joints + random.uniform(-0.1, 0.1, joints.shape), low, high)
    for vector, numbers, values in ((spec.proprio, state, joints), (spec.action, action, commands)):
        done = 0
        for field, columns in zip(vector.fields, vector.slices().values(), strict=True):
            if field.kind == "joint" and field.arm == kinematics.arm:
                per_unit = 180 / np.pi if field.unit == "deg" else 1.0
                numbers[:, columns] = values[:, done : done + field.size] * per_unit / field.scale
                done += field.size


def _numbers(fields: tuple[FieldSpec, ...], random: np.random.Generator) -> FloatArray:
    """Random recorded numbers [LENGTH, n] such as the declaration allows."""
    return np.concatenate([_field(field, random) for field in fields], axis=1)


def _field(field: FieldSpec, random: np.random.Generator) -> FloatArray:
    shape = (LENGTH, field.size)
    if field.kind == "rotation":
        size = 0.5 if isinstance(field, ActionFieldSpec) and field.reference != "absolute" else 3.0
        vectors = random.normal(size=(LENGTH, 3))
        vectors *= random.uniform(0.05, size, size=(LENGTH, 1)) / np.linalg.norm(vectors, axis=1, keepdims=True)
        coded = encode(Rotation.from_rotvec(vectors), str(field.format), field.unit) / field.scale
        return np.asarray(coded, dtype=np.float64)
    if field.kind == "gripper":
        assert field.open is not None
        assert field.closed is not None
        share = random.uniform(size=shape) if field.threshold is None else random.integers(2, size=shape)
        share[:2, 0] = (0.0, 1.0)
        return np.asarray(field.open + share * (field.closed - field.open), dtype=np.float64)
    values = random.uniform(-0.5, 0.5, size=shape)
    per_unit = {"m": 1.0, "cm": 100.0, "mm": 1000.0, "deg": 180 / np.pi, "percent": 100.0}
    return values * per_unit.get(str(field.unit), 1.0) / field.scale
