"""What `plugin.yaml` declares about one robot: cameras, proprio, action, rate, horizon, dataset, slot."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from xvla_platform.specs.base import SCHEMA_VERSION, StrictModel
from xvla_platform.specs.fields import ActionSpec, VectorSpec

NAME_PATTERN = r"^[a-z][a-z0-9_]{0,63}$"
Resolution = Annotated[tuple[int, int], AfterValidator(lambda size: _check_resolution(size))]


class CameraSpec(StrictModel):
    """One camera stream.

    Attributes:
        role: The main view is read together with the instruction; auxiliary views follow in declared order.
        mount: Where the camera sits.
        resolution: Recorded (height, width) in pixels.
        key: Dataset key of the stream.
    """

    name: str = Field(min_length=1, pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    role: Literal["main", "auxiliary"]
    mount: Literal["fixed", "wrist", "head", "chest", "other"]
    resolution: Resolution
    key: str = Field(min_length=1)


class DatasetSpec(StrictModel):
    """Where the demonstrations are and how they are cut.

    Attributes:
        format: Name of a registered dataset reader.
        path: Folder, relative to the plugin folder.
        repo: Instead of `path`, a dataset id on the Hub.
        revision: Commit, tag or branch of `repo`.
        held_out: Share of episodes kept out of training (half of them choose the checkpoint, half measure it).
        tail: What the chunk does at the end of an episode: `hold` the last target, or `shrink` the horizon to
            what is left (the rule of the public code).
    """

    format: str = "lerobot"
    path: str | None = None
    repo: str | None = None
    revision: str | None = None
    held_out: float = Field(default=0.2, gt=0.0, lt=1.0)
    tail: Literal["hold", "shrink"] = "hold"

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.repo is None):
            raise ValueError("give exactly one of `path` (a folder) and `repo` (a Hub dataset id)")
        if self.revision is not None and self.repo is None:
            raise ValueError("`revision` belongs to `repo`")
        return self


class PromptSpec(StrictModel):
    """How the new prompt slot starts.

    `nearest`: copy of the existing slot with the lowest measured loss on this robot's data; `mean` of the
    slots used in pretraining; `random` as at the base's own initialisation; `copy` of domain `copy_from`.
    """

    init: Literal["nearest", "mean", "random", "copy"] = "nearest"
    copy_from: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _copy_rules(self) -> Self:
        if (self.init == "copy") != (self.copy_from is not None):
            raise ValueError("`copy_from` (a domain id) goes with `init: copy`, and only with it")
        return self


class EmbodimentSpec(StrictModel):
    """One robot, as its plugin declares it."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str = Field(pattern=NAME_PATTERN)
    description: str = Field(min_length=1)
    control_hz: float = Field(gt=0, le=1000, allow_inf_nan=False)
    horizon_s: float = Field(gt=0, le=60, allow_inf_nan=False)
    cameras: tuple[CameraSpec, ...] = Field(min_length=1, max_length=8)
    proprio: VectorSpec
    action: ActionSpec
    dataset: DatasetSpec
    prompt: PromptSpec = PromptSpec()

    @model_validator(mode="after")
    def _cross_rules(self) -> Self:
        mains = [camera.name for camera in self.cameras if camera.role == "main"]
        if len(mains) != 1:
            found = f"{len(mains)} ({', '.join(mains)})" if mains else "none"
            raise ValueError(f"cameras: exactly one camera has role main, found {found}")
        for attribute in ("name", "key"):
            values = [getattr(camera, attribute) for camera in self.cameras]
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"cameras: {attribute} used twice: {', '.join(twice)}")
        self._check_references()
        return self

    def _check_references(self) -> None:
        for action in self.action.fields:
            states = [f for f in self.proprio.fields if f.kind == action.kind and f.arm == action.arm]
            if action.kind in ("position", "rotation"):
                frames = {state.frame for state in states} | {action.frame}
                if len(frames) > 1:
                    raise ValueError(
                        f"action.{action.name} is in frame '{action.frame}' but proprio has "
                        f"'{states[0].frame}'; both must be in one frame"
                    )
            if action.reference == "relative" and not any(
                state.size == action.size or state.kind != "joint" for state in states
            ):
                raise ValueError(f"action.{action.name} is relative, so proprio needs a {action.kind} of the same arm")

    @property
    def ordered_cameras(self) -> tuple[CameraSpec, ...]:
        """Main view first, then the auxiliary views in declared order."""
        return tuple(sorted(self.cameras, key=lambda camera: camera.role != "main"))


def _check_resolution(size: tuple[int, int]) -> tuple[int, int]:
    if not all(16 <= side <= 8192 for side in size):
        raise ValueError("resolution is [height, width] in pixels, each between 16 and 8192")
    return size
