"""`sweep.yaml`: which settings of an adaptation a sweep tries, and the values of each."""

from typing import Literal

from pydantic import Field

from xvla_platform.specs.base import SCHEMA_VERSION, StrictModel

Value = bool | int | float | str


class SweepSpec(StrictModel):
    """A grid: every combination of the values is one cell.

    Attributes:
        name: Name of the sweep, which every version made by it carries.
        grid: Setting to its values, in the order in which cells vary. A setting is `then`, `init`, `seed`, `steps`,
            `batch_size`, `rank`, `alpha`, `targets` (policy, everywhere), or a stage's own: `prompt.lr.soft_prompts`.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    grid: dict[str, tuple[Value, ...]] = Field(min_length=1)
