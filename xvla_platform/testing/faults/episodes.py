"""Mistakes with episodes and their words: instructions, copies across the split, the wrong kind of robot."""

from typing import Literal

import numpy as np

from xvla_platform.data.reader import DatasetReader
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.testing.faults import codes
from xvla_platform.testing.faults.declare import restated, spread
from xvla_platform.testing.faults.fault import Fault, Planted, chosen, generator
from xvla_platform.testing.faults.recode import with_joints
from xvla_platform.testing.faults.views import NumbersView, RowsView, Vectors, WordsView


def instructions(
    reader: DatasetReader,
    spec: EmbodimentSpec,
    seed: int,
    how: Literal["missing", "blank", "placeholder", "equal"],
    share: float = 1.0,
) -> Planted:
    """A share of the episodes has no words, white space, a placeholder, or the same words as every other."""
    random, hit = np.random.default_rng(seed), sorted(chosen(reader, share, seed))
    placeholder = str(random.choice(["task", "TODO", "default", "dummy task", "your task description", "test"]))
    same = reader.episodes[int(random.integers(len(reader.episodes)))].instruction
    words = {"missing": "", "blank": "  ", "placeholder": placeholder, "equal": same}[how]
    return WordsView(reader, dict.fromkeys(hit, words)), spec


def duplicated(reader: DatasetReader, spec: EmbodimentSpec, seed: int, share: float, noise: float = 0.0) -> Planted:
    """A share of the episodes stands in the set twice, exactly or recorded again from the same run."""
    hit = sorted(chosen(reader, share, seed))
    cuts = [(episode.index, np.arange(episode.length)) for episode in reader.episodes]
    copies = [cuts[episode] for episode in hit]
    view = RowsView(reader, [*cuts, *copies], renumbered=False)
    if noise == 0.0:
        return view, spec

    def change(episode: int, vectors: Vectors) -> Vectors:
        if episode < len(cuts):
            return vectors
        random = generator(seed, episode)
        return {
            name: values + noise * spread(values) * random.normal(size=values.shape) for name, values in vectors.items()
        }

    return NumbersView(view, spec, change), spec


def joint_space(reader: DatasetReader, spec: EmbodimentSpec, seed: int, unit: str) -> Planted:
    """The robot is recorded and declared in joint space, rightly, but the base speaks end-effector poses."""
    return with_joints(reader, spec, unit)


def wrong_column(reader: DatasetReader, spec: EmbodimentSpec, seed: int, how: str) -> Planted:
    """A vector names a column that does not exist, or its fields do not fill the column."""
    name = ("proprio", "action")[int(np.random.default_rng(seed).integers(2))]
    vector = spec.proprio if name == "proprio" else spec.action
    values = vector.model_dump(mode="json")
    if how == "key":
        values["key"] = f"{vector.key}s"
    else:
        values["fields"] = [field for field in values["fields"] if field["kind"] != "gripper"]
    return reader, restated(spec, **{name: values})


FAULTS = (
    Fault(
        name="missing_instructions",
        about="episodes have no words",
        codes=codes.NO_WORDS,
        make=instructions,
        strengths={
            "all": {"how": "missing"},
            "a tenth": {"how": "missing", "share": 0.1},
            "white space": {"how": "blank", "share": 0.5},
        },
    ),
    Fault(
        name="placeholder_instructions",
        about="episodes have a placeholder for words",
        codes=codes.PLACEHOLDER,
        make=instructions,
        strengths={"all": {"how": "placeholder"}, "a third": {"how": "placeholder", "share": 0.33}},
    ),
    Fault(
        name="equal_instructions",
        about="every episode has the same words",
        codes=codes.EQUAL_WORDS,
        make=instructions,
        strengths={"all": {"how": "equal"}},
    ),
    Fault(
        name="duplicated_episodes",
        about="episodes stand in the set twice, so that held-out ones are trained on",
        codes=codes.LEAKAGE,
        make=duplicated,
        strengths={
            "all": {"share": 1.0},
            "half": {"share": 0.5},
            "half, numbers a little off": {"share": 0.5, "noise": 1e-6},
        },
    ),
    Fault(
        name="joint_space",
        about="a robot in joint space meets a base of end-effector poses",
        codes=codes.JOINT_SPACE,
        make=joint_space,
        strengths={"rad": {"unit": "rad"}, "deg": {"unit": "deg"}},
    ),
    Fault(
        name="misdeclared_column",
        about="a vector's key does not exist, or its fields do not fill the column",
        codes=codes.COLUMN_DECLARATION,
        make=wrong_column,
        strengths={"key": {"how": "key"}, "sizes": {"how": "sizes"}},
    ),
)
