"""From a robot's recorded vectors to the quantities a base is told, in the model's frame, and back.

Two declared steps lie between a recorded quantity and the model's: an arm's joints become the pose of its end
effector where the base knows poses only, and a pose moves to the model's frame and tool. Relative actions are made
absolute before either. Values are canonical (metres, radians, rotation matrices, closedness).
"""

from collections.abc import Mapping
from pathlib import Path

from xvla_platform.data.canonical import Trajectory, absolute_targets, canonical_state
from xvla_platform.data.frames import Changes
from xvla_platform.data.joint_poses import Arms
from xvla_platform.data.reader import FloatArray
from xvla_platform.data.references import check_references
from xvla_platform.specs.action_space import ActionSpace
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.specs.fields import FieldSpec

Values = Mapping[str, FloatArray]


class Conventions:
    """What the declared fields of one robot mean to a base of one action space.

    Attributes:
        proprio, action: The fields as the model is told them, in declared order: without ignored ones, and with a
            position and a rotation in the place of joints that are turned into a pose.
    """

    def __init__(self, spec: EmbodimentSpec, space: ActionSpace | None = None, folder: Path | None = None) -> None:
        """
        Args:
            space: The base's action space; joints become poses only where it holds poses.
            folder: Where the files of `spec.kinematics` lie; needed only where joints become poses.
        """
        check_references(spec)
        self.spec = spec
        self._arms = Arms(spec, space, folder)
        self.proprio = self._arms.fields(spec.proprio.fields, "proprio")
        self.action = self._arms.fields(spec.action.fields, "action")
        self._changes = Changes(spec.frame_changes, {"proprio": self.proprio, "action": self.action})

    @property
    def files(self) -> dict[str, str]:
        """What the kinematics in use were read from: name of each file to its text, whole in itself."""
        return self._arms.files

    @property
    def needs_state(self) -> bool:
        """Whether the robot's present state is needed to turn a target into the robot's own numbers."""
        return self._arms.any

    def state(self, raw: FloatArray) -> dict[str, FloatArray]:
        """Recorded states [..., P] as canonical values by proprio field, in the model's frame."""
        return self._to_model(canonical_state(self.spec, raw), self.proprio)

    def targets(self, raw_state: FloatArray, raw_action: FloatArray) -> Trajectory:
        """One whole episode's recorded states [L, P] and actions [L, A] as absolute targets in the model's frame."""
        absolute = absolute_targets(self.spec, raw_state, raw_action)
        values = self._to_model(absolute.values, self.action)
        return Trajectory(values=values, kinds={field.name: field.kind for field in self.action})

    def undo_frames(self, targets: Values) -> dict[str, FloatArray]:
        """Targets by action field, from the model's frame and tool to the recorded ones."""
        return self._changes.undo(targets, self.action)

    def declared(self, targets: Values, raw_state: FloatArray | None) -> dict[str, FloatArray]:
        """Targets [..., T, *] by declared action field, from those by action field in the recorded frame.

        `raw_state` [..., P] is the recorded state now, from which joints are sought.
        """
        now = None if raw_state is None else canonical_state(self.spec, raw_state)
        return self._arms.to_joints(targets, now)

    def _to_model(self, values: Values, fields: tuple[FieldSpec, ...]) -> dict[str, FloatArray]:
        return self._changes.apply(self._arms.to_poses(values), fields)
