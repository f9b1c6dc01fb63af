"""A pretraining recipe held against its robots, its model and its recordings, before the first step."""

from pathlib import Path

from xvla_platform.adapt.base_folder import Robot
from xvla_platform.adapt.mixture import UV, Stock, mixture_weights
from xvla_platform.errors import XvlaError
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.flops import count_flops
from xvla_platform.modelling.named import resolve_config
from xvla_platform.specs.recipe import PretrainRecipe


def check_recipe(recipe: PretrainRecipe, file: Path, robots: list[Robot], processes: int) -> None:
    """Refuse an unshareable batch, a robot with no row or too few views in the model, and grounding on a rectangle."""
    for i, phase in enumerate(recipe.phases):
        if phase.stage.batch_size % processes:
            raise XvlaError(
                "the processes cannot share a batch equally",
                file=file,
                field=f"phases[{i}].stage.batch_size",
                found=phase.stage.batch_size,
                allowed=f"a multiple of {processes}",
            )
    config = XVLAConfig.from_dict(resolve_config(recipe.model, file), file)
    height, width = recipe.image_size
    if height != width and any(phase.grounding for phase in recipe.phases):
        raise XvlaError(
            "grounding reads a square grid of image tokens",
            file=file,
            field="image_size",
            found=[height, width],
            allowed="height equal to width",
        )
    for phase in recipe.phases:
        mixture_weights(phase.mixture, [domain.name for domain in recipe.domains], file)
    for i, robot in enumerate(robots):
        if robot.domain.domain_id >= config.num_domains:
            raise XvlaError(
                "the model has no such row",
                file=file,
                field=f"domains[{i}].domain_id",
                found=robot.domain.domain_id,
                allowed=f"0-{config.num_domains - 1}",
            )
        if len(robot.spec.cameras) > config.num_views:
            raise XvlaError(
                "the model has fewer views than the robot has cameras",
                file=file,
                field=f"domains[{i}]",
                found=f"{robot.domain.name} with {len(robot.spec.cameras)} cameras",
                allowed=f"at most {config.num_views}",
            )


def check_model(config: XVLAConfig, recipe: PretrainRecipe, file: Path) -> None:
    """Refuse dimensions of which no model can be made, by building it once without memory and running it."""
    height, width = recipe.image_size
    try:
        count_flops(config, recipe.image_size)
    except XvlaError as error:
        raise XvlaError(
            error.message,
            file=file,
            field=f"model.{error.field}",
            found=error.found,
            allowed=error.allowed,
            hint=error.hint,
        ) from None
    except Exception as error:
        raise XvlaError(
            f"no model can be built of these values for images of {height}x{width}: {' '.join(str(error).split())}",
            file=file,
            field="model",
        ) from None


def check_grounding(recipe: PretrainRecipe, file: Path, stocks: list[Stock]) -> None:
    """A phase that asks where the named object is needs robots whose recordings say so."""
    known = {stock.source.name for stock in stocks if stock.uv is not None}
    names = [stock.source.name for stock in stocks]
    for i, phase in enumerate(recipe.phases):
        weights = mixture_weights(phase.mixture, names, file)
        used = {name for name, weight in zip(names, weights, strict=True) if weight}
        lacking = used - known
        if phase.grounding and (not used & known or (not phase.policy and lacking)):
            raise XvlaError(
                f"grounding needs recordings with the column {UV}",
                file=file,
                field=f"phases[{i}]",
                found=f"none in {', '.join(sorted(lacking))}",
                hint="record still scenes again, or give the phase no grounding",
            )
