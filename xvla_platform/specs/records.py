"""What the platform itself writes: the embodiment record and the manifest of an adaptation."""

from typing import Literal

from pydantic import Field

from xvla_platform.specs.base import SCHEMA_VERSION, StrictModel
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.specs.fields import RotationFormat


class BaseRef(StrictModel):
    """The exact base model. `fingerprint` is the sha256 over the hashes of its weight files."""

    id: str
    revision: str | None = None
    fingerprint: str


class PromptSlot(StrictModel):
    """An address in the base's five per-domain tables: not an identity, any free row will do."""

    domain_id: int = Field(ge=0)
    num_domains: int = Field(ge=1, description="rows of the tables once this slot exists (they may have grown)")


class DataRef(StrictModel):
    """The dataset a record or an adaptation stands on. `path` is relative to the plugin folder."""

    format: str
    path: str | None = None
    repo: str | None = None
    revision: str | None = None
    fingerprint: str
    episodes: int
    frames: int
    fps: float


class AcceptedFinding(StrictModel):
    """An error-level finding of the checks that the user registered the robot in spite of.

    Attributes:
        code: The rule's code.
        field: Where in the declaration.
        measured: What was found, with its numbers.
    """

    code: str
    field: str | None = None
    measured: str


class EmbodimentRecord(StrictModel):
    """A declaration, checked against its data and given a slot: `embodiments/<name>/embodiment.yaml`.

    Attributes:
        plugin: Folder of the plugin, relative to the workspace where it lies inside it.
        plugin_sha256: Hash of the plugin's YAML, so that a later edit is noticed.
        action_space: The base's action space that the fields are mapped to.
        rotation_layout: Layout of 6D rotations in the model vector.
        accepted: What the checks found to be wrong, and the user accepted by its code.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    spec: EmbodimentSpec
    plugin: str
    plugin_sha256: str
    base: BaseRef
    slot: PromptSlot
    action_space: str
    rotation_layout: RotationFormat
    data: DataRef
    accepted: tuple[AcceptedFinding, ...] = ()


class SweepCell(StrictModel):
    """Which cell of which sweep an adaptation is.

    Attributes:
        sweep: The sweep's name.
        values: What tells the cell from the others: `rank`, `init` and the like.
    """

    sweep: str
    values: dict[str, str | int | float | bool]


class Manifest(StrictModel):
    """Provenance of one adaptation: `manifest.json`.

    Attributes:
        files: sha256 of every other file in the folder.
        tuning: What the adaptation holds beyond the slot.
        parent: The adaptation this one continued, as `name/vN`, if any.
        trained_with: Robots that were adapted in the same run.
        sweep: The cell of a sweep that this is, if it is one.
        versions: Library versions of the run.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    embodiment: str
    version: int = Field(ge=1)
    created: str
    tuning: Literal["prompt", "lora", "full"]
    base: BaseRef
    slot: PromptSlot
    data: DataRef
    seed: int
    parent: str | None = None
    trained_with: tuple[str, ...] = ()
    sweep: SweepCell | None = None
    git: str | None = None
    versions: dict[str, str]
    files: dict[str, str]
