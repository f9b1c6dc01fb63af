"""Numbers as options take them."""

import math
from typing import Any

import click


class NumberRange(click.FloatRange):
    """A number within bounds. NaN, which passes every bound as it compares with nothing, and infinity are refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number
