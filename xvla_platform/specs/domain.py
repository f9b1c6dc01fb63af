"""What is known of one row of a base's per-domain tables: the convention in which its data was given to the model.

A domain is one robot's dataset as pretraining saw it: its rate and horizon, how its gripper numbers became
closedness, how its rotations were recorded, and the range of its poses. What is not known is absent, never guessed.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from xvla_platform.specs.base import SCHEMA_VERSION, StrictModel

Finite = Annotated[float, Field(allow_inf_nan=False)]
RotationLayout = Literal["rot6d_interleaved", "rot6d_columns"]


class GripperRule(StrictModel):
    """How a recorded gripper number became the model's closedness, 0 open and 1 closed.

    Attributes:
        rule: `recorded`: it is closedness already; `one_minus`: 1 is open; `above` and `below`: closed beyond `at`;
            `stroke`: in proportion between `open` and `closed`.
        at: The threshold of `above` and `below`, in recorded units.
        open, closed: The recorded ends of a `stroke`.
    """

    rule: Literal["recorded", "one_minus", "above", "below", "stroke"]
    at: Finite | None = None
    open: Finite | None = None
    closed: Finite | None = None

    @model_validator(mode="after")
    def _values(self) -> Self:
        if (self.rule in ("above", "below")) != (self.at is not None):
            raise ValueError("`at` goes with `above` and `below`, and only with them")
        if any((self.rule == "stroke") != (end is not None) for end in (self.open, self.closed)):
            raise ValueError("`open` and `closed` go with `stroke`, and only with it")
        if self.rule == "stroke" and self.open == self.closed:
            raise ValueError("`open` and `closed` are equal")
        return self

    def closedness(self, recorded: float) -> float:
        """The model's number for a recorded one."""
        if self.rule == "recorded":
            return recorded
        if self.rule == "one_minus":
            return 1.0 - recorded
        if self.rule == "stroke":
            assert self.open is not None
            assert self.closed is not None
            return (recorded - self.open) / (self.closed - self.open)
        assert self.at is not None
        return float(recorded > self.at if self.rule == "above" else recorded < self.at)

    def __str__(self) -> str:
        words = {"recorded": "1 closed", "one_minus": "1 open", "stroke": f"{self.open} open, {self.closed} closed"}
        return words.get(self.rule) or f"closed {self.rule} {self.at:g}"


class FieldRange(StrictModel):
    """Where the canonical numbers of one field lie, one number a dim.

    Attributes:
        kind: `position`, `joint` or `gripper`.
        unit: `m`, `rad`, `closedness`, or `share` of a joint's range.
    """

    kind: Literal["position", "joint", "gripper"]
    arm: Literal["left", "right"] = "left"
    unit: Literal["m", "rad", "closedness", "share"]
    mean: tuple[Finite, ...] = Field(min_length=1)
    std: tuple[Finite, ...] = Field(min_length=1)
    q01: tuple[Finite, ...] = Field(min_length=1)
    q99: tuple[Finite, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        sizes = {len(part) for part in (self.mean, self.std, self.q01, self.q99)}
        if len(sizes) != 1:
            raise ValueError("mean, std, q01 and q99 differ in size")
        return self


class DomainConvention(StrictModel):
    """One row of a base and what is known of its data.

    Attributes:
        domain_id: The row.
        also: Other dataset names that were trained into the same row.
        pretrained: Part of the base's own pretraining, rather than of later fine-tuning.
        control_hz: Rate at which the data was read; what the public code assumed, where the recording says otherwise.
        horizon_s: Seconds that one chunk of actions covered.
        tail_margin: Frames at the end of an episode that were never a starting point.
        gripper: How recorded gripper numbers became closedness.
        rotation_source: Format in which rotations were recorded, as `plugin.yaml` names it.
        rotation_layout: Layout of the six rotation numbers that the model was shown.
        arms: Arms that are driven.
        cameras: Views in the model's order, main view first.
        proprio, action: Range of the canonical numbers by field.
        notes: What else matters.
        source: Where these facts come from.
    """

    domain_id: int = Field(ge=0)
    name: str = Field(min_length=1)
    also: tuple[str, ...] = ()
    pretrained: bool = False
    control_hz: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    horizon_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    tail_margin: int | None = Field(default=None, ge=0)
    gripper: GripperRule | None = None
    rotation_source: str | None = None
    rotation_layout: RotationLayout | None = None
    arms: tuple[Literal["left", "right"], ...] = ()
    cameras: tuple[str, ...] = ()
    proprio: dict[str, FieldRange] = Field(default_factory=dict)
    action: dict[str, FieldRange] = Field(default_factory=dict)
    notes: str | None = None
    source: str | None = None


class PublishedDomains(StrictModel):
    """The rows of a family of public bases.

    Attributes:
        bases: Hub ids, with `*` for any ending.
        revisions: For which state of those bases the ids hold; they were renumbered at least once.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    bases: tuple[str, ...] = Field(min_length=1)
    num_domains: int = Field(ge=1)
    revisions: str
    source: str
    domains: tuple[DomainConvention, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> Self:
        ids = [domain.domain_id for domain in self.domains]
        if len(set(ids)) < len(ids) or max(ids) >= self.num_domains:
            raise ValueError("domain ids must be unique and below num_domains")
        return self
