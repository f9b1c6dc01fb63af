"""How a base is pretrained: the model's dimensions, the robots with their rows, and the phases of the mixture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from xvla_platform.specs.base import SCHEMA_VERSION, Seed, StrictModel, load_model, read_yaml, validate_model
from xvla_platform.specs.changes import with_changes
from xvla_platform.specs.plan import Stage


class Balance(StrictModel):
    """How often a sample is drawn among those of its own dataset; by default all alike.

    Attributes:
        tasks: Every distinct instruction is drawn equally often, however many episodes it has.
        episodes: Every episode (of a task, where `tasks` is set) is drawn equally often, however long it is.
        positions: Relative chance of equal parts of an episode, from its start to its end: `[2, 1, 1]` draws the
            first third twice as often as its length alone would.
    """

    tasks: bool = False
    episodes: bool = False
    positions: tuple[float, ...] = Field(default=(1.0,), min_length=1)

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if min(self.positions) < 0 or not sum(self.positions):
            raise ValueError("positions must not be negative, and not all zero")
        return self


class Domain(StrictModel):
    """One row of the tables: a robot's plugin and which of its datasets trains the row.

    Attributes:
        name: Name under which mixtures and `domains.json` know the row.
        plugin: Plugin folder, relative to the workspace.
        data: Dataset folder inside the plugin, where it differs from the plugin's own `dataset.path`.
        per_scene: Episodes that are recorded of each scene, one after another, as `xvla record` writes them. They are
            held out together, and compared with each other; still pictures of one scene are encoded once.
        balance: Which of the dataset's samples are drawn more often.
    """

    name: str
    domain_id: int = Field(ge=0)
    plugin: str
    data: str | None = None
    per_scene: int = Field(default=1, ge=1)
    balance: Balance = Balance()


class Phase(StrictModel):
    """One stage of pretraining over its own mixture.

    Attributes:
        mixture: Sampling weight by domain name, absent means 0; or the name of a published mixture.
        grounding: Weight of the loss that asks where the named object is, on the samples whose dataset knows it.
        policy: False leaves the policy out: the encoder learns from the grounding loss alone, on main views only.
        measure_every: Steps between measurements on held-out scenes; one is always taken at the phase's end.
    """

    stage: Stage
    mixture: dict[str, float] | str = Field(min_length=1)
    grounding: float = Field(default=0.0, ge=0.0)
    policy: bool = True
    measure_every: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _rules(self) -> Self:
        where = f"phase {self.stage.name}"
        if not self.policy and not self.grounding:
            raise ValueError(f"{where}: without policy and without grounding nothing would be learned")
        if self.grounding and "vlm" not in self.stage.lr:
            raise ValueError(f"{where}: grounding teaches the encoder, so `lr` must name vlm")
        if not self.policy and set(self.stage.lr) != {"vlm"}:
            raise ValueError(f"{where}: without policy only vlm can train, and `lr` names {', '.join(self.stage.lr)}")
        if self.stage.lora is not None:
            raise ValueError(f"{where}: pretraining has no LoRA")
        return self


class PretrainRecipe(StrictModel):
    """A base, reproducible from demonstrations and one seed.

    Attributes:
        model: `config.json` of the base, in the official form; with `from`, over a configuration by that name.
        image_size: Model input (height, width).
        vocabulary: Size of the byte-level BPE tokenizer trained on the instructions.
        objects: What instructions can name, for grounding: phrases by thing, as `red cube: [red cube, red block]`. What
            is named first lies at the dataset's `grounding.uv`, the second at `grounding.place_uv`. Without it every
            instruction is a thing of its own.
        held_out: Share of each dataset, its last scenes, that no phase trains on and every measure is taken on.
        frames: `decoded` keeps every frame on disk at the model's size; `on_demand` decodes what each batch needs,
            for data that would not fit.
        adaptation: Stages that suit this base (`prompt`, `lora`, `full`), shipped with it as `adaptation.yaml`.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    description: str
    seed: Seed = 0
    image_size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    vocabulary: int = Field(ge=261)
    objects: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    held_out: float = Field(default=0.1, ge=0.0, lt=1.0)
    frames: Literal["decoded", "on_demand"] = "decoded"
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
        stages = [phase.stage.name for phase in self.phases]
        if len(set(stages)) < len(stages):
            raise ValueError("phases: the names of their stages must be unique")
        for i, phase in enumerate(self.phases):
            if isinstance(phase.mixture, str):
                continue
            unknown = sorted(set(phase.mixture) - set(names))
            if unknown:
                raise ValueError(f"phases[{i}].mixture names unknown domain {unknown[0]}; allowed: {', '.join(names)}")
            if any(weight < 0 for weight in phase.mixture.values()) or not sum(phase.mixture.values()):
                raise ValueError(f"phases[{i}].mixture: weights must not be negative, and not all zero")
        return self


def load_recipe(file: Path, changes: Sequence[str] = ()) -> tuple[PretrainRecipe, str]:
    """A recipe with changes made (`specs/changes.py`), and the text that is kept beside the weights it makes."""
    if not changes:
        return load_model(PretrainRecipe, file), file.read_text(encoding="utf-8")
    data = with_changes(read_yaml(file), changes, file)
    header = "".join(f"# {line}\n" for line in f"{file.name} with {', '.join(changes)}".splitlines())
    return validate_model(PretrainRecipe, data, file), header + yaml.safe_dump(data, sort_keys=False)


class Mixtures(StrictModel):
    """Published sampling weights by mixture and domain name."""

    schema_version: Literal[1] = SCHEMA_VERSION
    mixtures: dict[str, dict[str, float]]
