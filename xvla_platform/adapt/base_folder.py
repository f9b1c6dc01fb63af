"""The folder of a base that is being pretrained: its inputs before the first step, its weights after the last.

In: a recipe with its robots, opened; later the trained model. Out: `config.json`, tokenizer, preprocessing and
`domains.json`; later the whole model folder in the official layout, with its recipe and its held-out measures.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from xvla_platform.adapt.domain_record import RECIPE, record_domain
from xvla_platform.adapt.plans import BASE_PLANS
from xvla_platform.adapt.tokenizer import train_tokenizer
from xvla_platform.data.conventions import Conventions
from xvla_platform.data.reader import DatasetReader
from xvla_platform.modelling.checkpoint import save_model
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.named import resolve_config
from xvla_platform.modelling.processor import IMAGENET_MEAN, IMAGENET_STD
from xvla_platform.modelling.strategy import STRATEGIES, describe
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.platform.base_config import config_space
from xvla_platform.platform.domains import DOMAINS, domains_json
from xvla_platform.platform.files import atomic_folder, write_json, write_text
from xvla_platform.specs.domain import DomainConvention
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.specs.recipe import Domain, PretrainRecipe

HELD_OUT = "held_out.json"


@dataclass(frozen=True, kw_only=True)
class Robot:
    """One domain of the mixture with its open dataset and its plugin's folder."""

    domain: Domain
    spec: EmbodimentSpec
    reader: DatasetReader
    folder: Path


def instructions_of(robots: list[Robot]) -> list[str]:
    """Every instruction that some robot is given, once, in order: its place is what grounding calls a class."""
    return sorted({episode.instruction for robot in robots for episode in robot.reader.episodes})


def write_inputs(folder: Path, recipe: PretrainRecipe, recipe_file: Path, robots: list[Robot]) -> None:
    """`config.json`, the tokenizer trained on every instruction, and the image preprocessing."""
    with atomic_folder(folder, replace=True) as build:
        config: dict[str, Any] = resolve_config(recipe.model, recipe_file)
        describes = STRATEGIES[XVLAConfig.from_dict(config, recipe_file).strategy].describes
        sentences = [describe(robot.spec) for robot in robots] if describes else []
        vocabulary = train_tokenizer([*instructions_of(robots), *sentences], recipe.vocabulary, build)
        config["florence_config"]["vocab_size"] = vocabulary
        config["florence_config"]["text_config"]["vocab_size"] = vocabulary
        write_json(build / "config.json", config)
        height, width = recipe.image_size
        preprocessing = {
            "image_processor_type": "CLIPImageProcessor",
            "do_resize": True,
            "size": {"height": height, "width": width},
            "resample": 3,
            "do_center_crop": False,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(IMAGENET_MEAN),
            "image_std": list(IMAGENET_STD),
        }
        write_json(build / "preprocessor_config.json", preprocessing)
        write_json(build / DOMAINS, domains_json(_conventions(config, robots, build / "config.json")))


def _conventions(config: dict[str, Any], robots: list[Robot], file: Path) -> dict[int, DomainConvention]:
    """What each row is trained with, so that later datasets can be compared with it."""
    space = config_space(config, file)
    return {
        robot.domain.domain_id: record_domain(
            robot.domain.domain_id,
            robot.domain.name,
            robot.spec,
            robot.reader,
            conventions=Conventions(robot.spec, space, robot.folder),
            rotation_layout=str(config.get("rotation_layout") or "rot6d_interleaved"),
        )
        for robot in robots
    }


def write_base(
    model: XVLA, staging: Path, recipe: PretrainRecipe, text: str, out: Path, measures: Mapping[str, float]
) -> None:
    with atomic_folder(out, replace=True) as build:
        save_model(model, build)
        for file in staging.iterdir():
            if file.name != "config.json":
                shutil.copy2(file, build / file.name)
        write_text(build / RECIPE, text)
        if measures:
            write_json(build / HELD_OUT, {name: round(value, 6) for name, value in sorted(measures.items())})
        if recipe.adaptation:
            stages = {name: stage.model_dump(mode="json") for name, stage in recipe.adaptation.items()}
            write_text(build / BASE_PLANS, yaml.safe_dump(stages, sort_keys=False))
