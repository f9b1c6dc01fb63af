"""The options that `xvla adapt` and `xvla sweep` share: which plan, how long, and how much disk for features."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from xvla_platform.cli.numbers import NumberRange
from xvla_platform.cli.output import Function

OPTIONS: list[Callable[[Any], Any]] = [
    click.option(
        "--then",
        type=click.Choice(["lora", "full", "none"]),
        default="lora",
        show_default=True,
        help="What follows the prompt-only stage.",
    ),
    click.option(
        "--plan",
        metavar="FILE|NAME",
        type=click.Path(path_type=Path, dir_okay=False),
        help="A plan of your own (YAML), or one that a plugin contributes, by its name.",
    ),
    click.option("--steps", type=click.IntRange(min=1), help="Steps of every stage."),
    click.option("--batch-size", type=click.IntRange(min=1), help="Samples a step, over all processes."),
    click.option(
        "--feature-budget",
        type=NumberRange(min=0),
        default=50.0,
        show_default=True,
        metavar="GB",
        help="Disk space that kept features may take together, in runs/.features.",
    ),
]


def plan_options(function: Function) -> Function:
    """`--then`, `--plan`, `--steps`, `--batch-size` and `--feature-budget`."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function
