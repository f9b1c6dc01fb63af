"""What a pretrained row was trained with, measured: the convention of its robot and the range of its data.

In: a robot's declaration and its open dataset. Out: a `DomainConvention` for `domains.json`, with which any later
dataset can be compared.
"""

from pathlib import Path
from typing import Any

from xvla_platform.data.conventions import Conventions
from xvla_platform.data.ranges import dataset_ranges
from xvla_platform.data.reader import DatasetReader
from xvla_platform.errors import XvlaError
from xvla_platform.platform.base_config import config_space
from xvla_platform.platform.bases import ResolvedBase
from xvla_platform.platform.domains import DOMAINS, domain_table, domains_json
from xvla_platform.platform.embodiments import open_data
from xvla_platform.platform.files import write_json
from xvla_platform.platform.plugins import load_plugin
from xvla_platform.platform.workspace import Workspace
from xvla_platform.specs.base import load_model
from xvla_platform.specs.domain import DomainConvention, GripperRule
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.specs.fields import FieldSpec
from xvla_platform.specs.recipe import Domain, PretrainRecipe

RECIPE = "recipe.yaml"


def record_domain(
    domain_id: int,
    name: str,
    spec: EmbodimentSpec,
    reader: DatasetReader,
    *,
    conventions: Conventions,
    rotation_layout: str | None,
) -> DomainConvention:
    """The convention of one row, and the range of its canonical numbers over the whole dataset."""
    frames = sum(episode.length for episode in reader.episodes)
    gripper = next((field for field in spec.action.fields if field.kind == "gripper"), None)
    rotation = next((field for field in spec.action.fields if field.kind == "rotation"), None)
    facts: dict[str, Any] = {
        "domain_id": domain_id,
        "name": name,
        "pretrained": True,
        "control_hz": spec.control_hz,
        "horizon_s": spec.horizon_s,
        "tail_margin": spec.dataset.tail_margin,
        "gripper": None if gripper is None else _rule(gripper),
        "rotation_source": None if rotation is None else rotation.format,
        "rotation_layout": rotation_layout if any(f.kind == "rotation" for f in conventions.action) else None,
        "arms": tuple(arm for arm in ("left", "right") if any(f.arm == arm for f in conventions.action)),
        "cameras": tuple(camera.name for camera in spec.ordered_cameras),
        "notes": f"ranges of {len(reader.episodes)} episodes, {frames} frames",
        **dataset_ranges(reader, spec, conventions),
    }
    return DomainConvention.model_validate(facts)


def measure_domains(workspace: Workspace, base: ResolvedBase) -> Path:
    """Fill `domains.json` of a base that was pretrained here, from the recordings that its recipe names."""
    path = base.folder / RECIPE
    if base.revision is not None or not path.is_file():
        raise XvlaError(
            "only a base that was pretrained here, with its recipe beside the weights, can be measured",
            file=path,
            hint="for another base, write domains.json by hand",
        )
    recipe = load_model(PretrainRecipe, path)
    known = dict(domain_table(base).domains)
    space = config_space(base.config, base.folder / "config.json")
    for domain in recipe.domains:
        folder, spec, reader = open_domain(workspace, domain)
        known[domain.domain_id] = record_domain(
            domain.domain_id,
            domain.name,
            spec,
            reader,
            conventions=Conventions(spec, space, folder),
            rotation_layout=base.rotation_layout,
        )
    write_json(base.folder / DOMAINS, domains_json(known))
    return base.folder / DOMAINS


def open_domain(workspace: Workspace, domain: Domain) -> tuple[Path, EmbodimentSpec, DatasetReader]:
    """A row's plugin folder, its declaration and its dataset."""
    plugin = load_plugin(workspace.root / domain.plugin)
    spec = plugin.spec
    if domain.data is not None:
        spec = spec.model_copy(update={"dataset": spec.dataset.model_copy(update={"path": domain.data})})
    if spec.dataset.path is not None and not (plugin.folder / spec.dataset.path).exists():
        raise XvlaError(
            "no demonstrations",
            file=plugin.folder / spec.dataset.path,
            field=domain.name,
            hint=f"record them as {plugin.folder.name}/README.md says: xvla record {domain.plugin}",
        )
    return plugin.folder, spec, open_data(spec, plugin.folder)


def _rule(field: FieldSpec) -> GripperRule:
    """The declared values as a rule."""
    if field.threshold is not None:
        assert field.open is not None
        assert field.closed is not None
        return GripperRule(rule="above" if field.closed > field.open else "below", at=field.threshold)
    ends = {(0.0, 1.0): GripperRule(rule="recorded"), (1.0, 0.0): GripperRule(rule="one_minus")}
    assert field.open is not None
    assert field.closed is not None
    return ends.get((field.open, field.closed)) or GripperRule(rule="stroke", open=field.open, closed=field.closed)
