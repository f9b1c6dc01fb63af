"""How a base is pretrained: the model's dimensions, the robots with their rows, and the phases of the mixture."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from xvla_platform.specs.base import SCHEMA_VERSION, StrictModel
from xvla_platform.specs.plan import Stage


class Domain(StrictModel):
    """One row of the tables: a robot's plugin and which of its datasets trains the row.

    Attributes:
        name: Name under which mixtures and `domains.json` know the row.
        plugin: Plugin folder, relative to the workspace.
        data: Dataset folder inside the plugin, where it differs from the plugin's own `dataset.path`.
    """

    name: str
    domain_id: int = Field(ge=0)
    plugin: str
    data: str | None = None


class Phase(StrictModel):
    """One stage of pretraining over its own mixture: sampling weight by domain name, absent means 0."""

    stage: Stage
    mixture: dict[str, float] = Field(min_length=1)


class PretrainRecipe(StrictModel):
    """A base, reproducible from demonstrations and one seed.

    Attributes:
        model: `config.json` of the base, in the official form.
        image_size: Model input (height, width).
        vocabulary: Size of the byte-level BPE tokenizer trained on the instructions.
        adaptation: Stages that suit this base (`prompt`, `lora`, `full`), shipped with it as `adaptation.yaml`.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str
    description: str
    seed: int = Field(default=0, ge=0)
    image_size: tuple[int, int]
    vocabulary: int = Field(ge=261)
    model: dict[str, Any]
    domains: tuple[Domain, ...] = Field(min_length=1)
    phases: tuple[Phase, ...] = Field(min_length=1)
    adaptation: dict[Literal["prompt", "lora", "full"], Stage] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _rules(self) -> Self:
        names = [domain.name for domain in self.domains]
        ids = [domain.domain_id for domain in self.domains]
        if len(set(names)) < len(names) or len(set(ids)) < len(ids):
            raise ValueError("domains: names and domain ids must be unique")
        for i, phase in enumerate(self.phases):
            unknown = sorted(set(phase.mixture) - set(names))
            if unknown:
                raise ValueError(f"phases[{i}].mixture names unknown domain {unknown[0]}; allowed: {', '.join(names)}")
            if any(weight < 0 for weight in phase.mixture.values()) or not sum(phase.mixture.values()):
                raise ValueError(f"phases[{i}].mixture: weights must not be negative, and not all zero")
        return self
