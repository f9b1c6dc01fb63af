"""One arm's joints as an end-effector pose and back, from the robot's URDF or MJCF.

In: a declared chain and its plugin folder. Out: forward kinematics of any number of configurations at once, and
inverse kinematics by damped least squares from a given seed. MuJoCo reads the file (every default, Euler sequence
and angle unit of both formats is its business); the chain between root and tip is then a short list of transforms,
which numpy evaluates for all rows together.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

from xvla_platform.data.reader import FloatArray
from xvla_platform.data.robot_file import compile_robot, inside
from xvla_platform.errors import XvlaError
from xvla_platform.specs.embodiment import KinematicsSpec

STEPS = 80
RESTARTS = 24
TOGETHER = 200  # rows whose restarts are solved at once
LARGEST_STEP = 0.5  # rad or m, of any joint in one step; a larger one leaps to another branch of solutions
REACHED = 1e-6  # m and rad
LEVER = 0.25  # m; where a pose cannot be reached, one radian of error weighs as much as this many metres
STUCK = 1e8  # damping beyond which a step moves nothing


@dataclass(frozen=True, kw_only=True)
class _Segment:
    """A fixed transform, then at most one joint about or along `axis` through `anchor`, both in the new frame."""

    position: FloatArray
    rotation: FloatArray
    joint: int | None = None  # place in the declared joints
    slides: bool = False
    axis: FloatArray | None = None
    anchor: FloatArray | None = None
    zero: float = 0.0  # recorded value at which the file draws the joint


class Chain:
    """The joints between a robot's root and its tip.

    Attributes:
        low: Lower joint limits [n], rad (m for prismatic joints); -inf where the file states none.
        high: Upper joint limits [n].
    """

    low: FloatArray
    high: FloatArray

    def __init__(self, spec: KinematicsSpec, folder: Path) -> None:
        self.spec = spec
        self._file = inside(spec.file, folder)
        model = compile_robot(spec.file, folder)
        if not all(
            np.isfinite(part).all() for part in (model.body_pos, model.body_quat, model.site_pos, model.jnt_pos)
        ):
            raise XvlaError("places a body, site or joint at numbers that are not finite", file=self._file)
        try:
            self._segments = _segments(model, spec, self._file)
        except ValueError as error:  # a rotation of length 0, which overflow can leave behind
            raise XvlaError(f"holds a rotation that is none: {error}", file=self._file) from None
        self.low, self.high = _limits(model, spec)

    def forward(self, joints: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """The tip's position [..., 3], m, and rotation [..., 3, 3] in the root's frame, of joints [..., n], rad (m)."""
        values = self._rows(joints)
        shape = values.shape[:-1]
        position, rotation, _ = self._poses(values.reshape(-1, values.shape[-1]))
        return position.reshape(*shape, 3), rotation.reshape(*shape, 3, 3)

    def inverse(
        self,
        position: ArrayLike,
        rotation: ArrayLike,
        seed: ArrayLike,
        *,
        tolerance: tuple[float, float] | None = None,
    ) -> FloatArray:
        """Joints [..., n] within their limits whose tip is at the given pose, near `seed` [..., n].

        Rows are solved independently, each along the branch of its own seed; only where that branch does not reach
        the pose, the nearest of the other branches found is taken. Where none reaches it, the answer is the best of
        the seed's own branch, or an error if `tolerance` (m, rad) is given and not met.

        Args:
            position: [..., 3], m, in the root's frame.
            rotation: [..., 3, 3].
            seed: [..., n] or [n], rad (m); values outside the limits are moved to them.
        """
        goal = np.asarray(position, dtype=np.float64)
        shape = goal.shape[:-1]
        start = np.broadcast_to(self._rows(seed), (*shape, len(self.low))).reshape(-1, len(self.low))
        turn = np.asarray(rotation, dtype=np.float64).reshape(-1, 3, 3)
        goal = goal.reshape(-1, 3)
        if not all(np.isfinite(part).all() for part in (goal, turn, start)):
            raise XvlaError("inverse kinematics of numbers that are not finite", file=self._file)
        joints, error = self._solve(goal, turn, start)
        self._try_other_branches(joints, error, goal, turn, start)
        if tolerance is not None:
            beyond = np.flatnonzero((error > np.asarray(tolerance)).any(axis=1))
            if len(beyond):
                row = beyond[0]
                raise XvlaError(
                    f"pose {row} cannot be reached",
                    file=self._file,
                    field=f"kinematics.{self.spec.arm}",
                    found=f"{error[row, 0] * 1000:.3g} mm and {np.rad2deg(error[row, 1]):.3g} deg off",
                    allowed=f"{tolerance[0] * 1000:.3g} mm and {np.rad2deg(tolerance[1]):.3g} deg",
                )
        return joints.reshape(*shape, len(self.low))

    def follow(self, position: ArrayLike, rotation: ArrayLike, seed: ArrayLike) -> FloatArray:
        """Joints [T, n] of a path of poses [T, 3], [T, 3, 3]: each seeded by the one before, the first by `seed` [n].

        Slower than `inverse`, and without its leaps from one branch to another between neighbours.
        """
        at, out = self._rows(seed), []
        for goal, turn in zip(np.asarray(position), np.asarray(rotation), strict=True):
            at = self.inverse(goal, turn, at)
            out.append(at)
        return np.stack(out) if out else np.empty((0, len(self.low)))

    def _rows(self, joints: ArrayLike) -> FloatArray:
        values = np.asarray(joints, dtype=np.float64)
        if values.ndim < 1 or values.shape[-1] != len(self.low):
            raise XvlaError(
                "joints of another size than the chain",
                file=self._file,
                found=list(values.shape),
                allowed=f"[..., {len(self.low)}] ({', '.join(self.spec.joints)})",
            )
        return values

    def _poses(self, joints: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Tip position [M, 3], rotation [M, 3, 3] and geometric Jacobian [M, 6, n] (m, then rad) of joints [M, n]."""
        rows, count = joints.shape
        position, rotation = np.zeros((rows, 3)), np.broadcast_to(np.eye(3), (rows, 3, 3))
        axes, anchors = np.zeros((rows, 3, count)), np.zeros((rows, 3, count))
        for part in self._segments:
            position = position + rotation @ part.position
            rotation = rotation @ part.rotation
            if part.joint is None:
                continue
            assert part.axis is not None
            assert part.anchor is not None
            value = joints[:, part.joint] - part.zero
            axes[:, :, part.joint] = rotation @ part.axis
            anchors[:, :, part.joint] = position + rotation @ part.anchor
            if part.slides:
                position = position + axes[:, :, part.joint] * value[:, None]
            else:
                rotation = rotation @ _about(part.axis, value)
                position = anchors[:, :, part.joint] - rotation @ part.anchor
        slides = np.zeros(count, dtype=bool)
        slides[[s.joint for s in self._segments if s.joint is not None and s.slides]] = True
        turned = np.cross(axes, position[:, :, None] - anchors, axis=1)
        jacobian = np.concatenate([np.where(slides, axes, turned), np.where(slides, 0.0, axes)], axis=1)
        return position, rotation, jacobian

    def _solve(self, goal: FloatArray, turn: FloatArray, start: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Damped least squares (Levenberg-Marquardt) of all rows together, each with its own damping, within limits.

        Returns:
            Joints [M, n] and errors [M, 2] (m, rad).
        """
        joints = np.clip(start, self.low, self.high)
        error, jacobian = self._errors(joints, goal, turn)
        damping = np.full(len(joints), 1e-3)
        for _ in range(STEPS):
            live = np.flatnonzero((np.abs(error).max(axis=1) > REACHED * LEVER) & (damping < STUCK))
            if not len(live):
                break
            trial = joints[live] + self._step(joints[live], error[live], jacobian[live], damping[live])
            trial = np.clip(trial, self.low, self.high)
            found, slope = self._errors(trial, goal[live], turn[live])
            better = (found**2).sum(axis=1) < (error[live] ** 2).sum(axis=1)
            kept = live[better]
            joints[kept], error[kept], jacobian[kept] = trial[better], found[better], slope[better]
            damping[live] = np.where(better, np.maximum(damping[live] / 5, 1e-12), damping[live] * 4)
        return joints, np.stack(
            [np.linalg.norm(error[:, :3], axis=1), np.linalg.norm(error[:, 3:], axis=1) / LEVER], axis=1
        )

    def _step(self, joints: FloatArray, error: FloatArray, jacobian: FloatArray, damping: FloatArray) -> FloatArray:
        pull = np.einsum("mij,mi->mj", jacobian, error)
        blocked = ((joints <= self.low) & (pull < 0)) | ((joints >= self.high) & (pull > 0))
        free = np.where(blocked[:, None, :], 0.0, jacobian)
        square = np.einsum("mij,mik->mjk", free, free) + damping[:, None, None] * np.eye(len(self.low))
        step = np.linalg.solve(square, np.where(blocked, 0.0, pull)[:, :, None])[:, :, 0]
        return step * np.minimum(1.0, LARGEST_STEP / (np.abs(step).max(axis=1, keepdims=True) + 1e-12))

    def _errors(self, joints: FloatArray, goal: FloatArray, turn: FloatArray) -> tuple[FloatArray, FloatArray]:
        """What is missing to the goal, [M, 6] in metres (rotations by LEVER), and its Jacobian [M, 6, n]."""
        position, rotation, jacobian = self._poses(joints)
        vector = Rotation.from_matrix(turn @ np.swapaxes(rotation, -1, -2)).as_rotvec()
        jacobian[:, 3:] *= LEVER
        return np.concatenate([goal - position, vector * LEVER], axis=1), jacobian

    def _try_other_branches(
        self, joints: FloatArray, error: FloatArray, goal: FloatArray, turn: FloatArray, start: FloatArray
    ) -> None:
        """Replace rows that stopped short by the nearest solution that is found from elsewhere."""
        rows = np.flatnonzero((error > 10 * REACHED).any(axis=1))
        spread = np.minimum(1.0, np.arange(1, RESTARTS + 1) / (RESTARTS / 3))[:, None]
        random = np.random.default_rng(0)
        for part in np.array_split(rows, -(-len(rows) // TOGETHER)) if len(rows) else ():
            near = np.clip(start[part], self.low, self.high)[:, None]
            low, high = np.maximum(self.low, near - np.pi), np.minimum(self.high, near + np.pi)
            elsewhere = random.uniform(low, high, (len(part), RESTARTS, len(self.low)))
            begin = (near + (elsewhere - near) * spread).reshape(-1, len(self.low))
            found, left = self._solve(np.repeat(goal[part], RESTARTS, 0), np.repeat(turn[part], RESTARTS, 0), begin)
            found, left = found.reshape(elsewhere.shape), left.reshape(len(part), RESTARTS, 2)
            there: np.ndarray = np.asarray((left <= 10 * REACHED).all(axis=2))
            best = np.where(there, np.abs(found - near).max(axis=2), np.inf).argmin(axis=1)
            at = np.arange(len(part))
            good = there[at, best]
            joints[part[good]], error[part[good]] = found[at, best][good], left[at, best][good]


def _about(axis: FloatArray, angle: FloatArray) -> FloatArray:
    """Rotations [M, 3, 3] about a unit axis [3] by angles [M], rad (Rodrigues)."""
    x, y, z = axis
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    sine, cosine = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    return np.asarray(np.eye(3) + sine * cross + (1.0 - cosine) * (cross @ cross))


def _matrix(quaternion_wxyz: FloatArray) -> FloatArray:
    return np.asarray(Rotation.from_quat(np.roll(quaternion_wxyz, -1)).as_matrix())


def _find(model: Any, name: str, tags: tuple[str, ...], file: Path, field: str) -> tuple[str, int]:
    """(kind, id) of the body or site `name`; a site goes before a body of that name."""
    counts = {"site": model.nsite, "body": model.nbody, "joint": model.njnt}
    known = {(tag, getattr(model, tag)(i).name): i for tag in tags for i in range(counts[tag])}
    for tag in tags:
        if (tag, name) in known:
            return tag, known[tag, name]
    names = sorted({other for _, other in known if other} - {"world"})
    shown = ", ".join(names[:40]) + (" …" if len(names) > 40 else "")
    raise XvlaError("is not in the robot's file", file=file, field=field, found=name, allowed=shown or "none exist")


def _segments(model: Any, spec: KinematicsSpec, file: Path) -> tuple[_Segment, ...]:
    """The transforms from root to tip; every joint among them must be declared, and every declared one be there."""
    twice = sorted({name for name in spec.joints if spec.joints.count(name) > 1})
    if twice:
        raise XvlaError("joint twice", file=file, field="kinematics.joints", found=twice[0])
    order = {_find(model, name, ("joint",), file, "kinematics.joints")[1]: i for i, name in enumerate(spec.joints)}
    tag, tip = _find(model, spec.tip, ("site", "body"), file, "kinematics.tip")
    root = 0 if spec.root is None else _find(model, spec.root, ("body",), file, "kinematics.root")[1]
    out: list[_Segment] = []
    body = tip
    if tag == "site":
        out.append(_Segment(position=model.site_pos[tip].copy(), rotation=_matrix(model.site_quat[tip])))
        body = int(model.site_bodyid[tip])
    while body != root:
        if body == 0:
            raise XvlaError("does not lead to the tip", file=file, field="kinematics.root", found=spec.root)
        out += reversed(_body_segments(model, body, order, spec, file))
        body = int(model.body_parentid[body])
    moved = {part.joint for part in out}
    idle = [name for i, name in enumerate(spec.joints) if i not in moved]
    if idle:
        raise XvlaError("joint does not move the tip", file=file, field="kinematics.joints", found=idle[0])
    return tuple(reversed(out))


def _body_segments(model: Any, body: int, order: dict[int, int], spec: KinematicsSpec, file: Path) -> list[_Segment]:
    import mujoco

    fixed = {"position": model.body_pos[body].copy(), "rotation": _matrix(model.body_quat[body])}
    first, count = int(model.body_jntadr[body]), int(model.body_jntnum[body])
    if not count:
        return [_Segment(**fixed)]
    out = []
    for joint in range(first, first + count):
        kind, name = int(model.jnt_type[joint]), model.joint(joint).name
        if kind not in (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE):
            raise XvlaError("joint with several degrees of freedom between root and tip", file=file, field=name)
        if joint not in order:
            raise XvlaError(
                "joint between root and tip is not declared",
                file=file,
                field="kinematics.joints",
                found=name or f"an unnamed one of body {model.body(body).name}",
                hint="list it in joints, or set root to a body behind it",
            )
        out.append(
            _Segment(
                **fixed,
                joint=order[joint],
                slides=kind == mujoco.mjtJoint.mjJNT_SLIDE,
                axis=model.jnt_axis[joint].copy(),
                anchor=model.jnt_pos[joint].copy(),
                zero=float(model.qpos0[model.jnt_qposadr[joint]]),
            )
        )
        fixed = {"position": np.zeros(3), "rotation": np.eye(3)}
    return out


def _limits(model: Any, spec: KinematicsSpec) -> tuple[FloatArray, FloatArray]:
    joints = [model.joint(name).id for name in spec.joints]
    limited = model.jnt_limited[joints].astype(bool)
    low, high = model.jnt_range[joints].T
    return np.where(limited, low, -np.inf), np.where(limited, high, np.inf)
