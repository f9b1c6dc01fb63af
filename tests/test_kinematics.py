"""Kinematics: poses that agree with independent computations, joints that come back, and files that are refused."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from xvla_platform.data import robot_file
from xvla_platform.data.kinematics import Chain
from xvla_platform.errors import XvlaError
from xvla_platform.specs.embodiment import KinematicsSpec

mujoco = pytest.importorskip("mujoco")

PLANAR = """<?xml version="1.0"?>
<robot name="planar">
  <material name="grey"><color rgba="0 0 0 1"/></material>
  <link name="base"><visual><geometry><mesh filename="package://nowhere/base.dae"/></geometry></visual></link>
  <link name="upper"><collision><geometry><mesh filename="/etc/passwd"/></geometry></collision></link>
  <link name="lower"/>
  <link name="hand"/>
  <joint name="shoulder" type="revolute">
    <origin xyz="0 0 0.1"/><parent link="base"/><child link="upper"/><axis xyz="0 0 1"/>
    <limit lower="-2" upper="2" effort="1" velocity="1"/>
  </joint>
  <joint name="elbow" type="continuous">
    <origin xyz="0.4 0 0"/><parent link="upper"/><child link="lower"/><axis xyz="0 0 1"/>
  </joint>
  <joint name="slide" type="prismatic">
    <origin xyz="0.3 0 0"/><parent link="lower"/><child link="hand"/><axis xyz="0 0 -1"/>
    <limit lower="0" upper="0.2" effort="1" velocity="1"/>
  </joint>
</robot>
"""
PLANAR_SPEC = KinematicsSpec(file="arm.urdf", joints=("shoulder", "elbow", "slide"), tip="hand")

# Six joints with defaults by class, degrees, a reference position, an offset anchor, a frame and a tip site.
SIX = """
<mujoco model="six">
  <compiler angle="degree" eulerseq="ZYX" meshdir="../../secret"/>
  <default>
    <joint axis="0 0 1" damping="3"/>
    <default class="pitch"><joint axis="0 1 0" range="-150 150"/></default>
  </default>
  <asset><mesh name="m" file="missing.stl"/></asset>
  <worldbody>
    <light pos="0 0 3"/>
    <geom type="plane" size="1 1 1"/>
    <body name="mount" pos="0.2 -0.1 0.5" euler="30 0 10">
      <geom type="mesh" mesh="m"/>
      <body name="b1" pos="0 0 0.1">
        <joint name="j1" range="-170 170"/>
        <body name="b2" pos="0.05 0 0.2" quat="0.9 0.1 0.2 -0.1">
          <joint name="j2" class="pitch" pos="0.01 0.02 0.03"/>
          <frame pos="0 0 0.3" euler="0 20 0">
            <body name="b3">
              <joint name="j3" class="pitch" ref="15"/>
              <body name="b4" pos="0.02 0 0.25">
                <joint name="j4"/>
                <body name="b5" pos="0 0 0.1">
                  <joint name="j5" class="pitch"/>
                  <body name="b6" pos="0 0 0.08" axisangle="1 0 0 40">
                    <joint name="j6"/>
                    <site name="grip" pos="0 0.03 0.1" euler="10 20 30"/>
                    <body name="finger"><joint name="f" type="slide" range="0 0.04"/></body>
                  </body>
                </body>
              </body>
            </body>
          </frame>
        </body>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="j1"/></actuator>
  <sensor><jointpos joint="j1"/></sensor>
</mujoco>
"""
SIX_JOINTS = tuple(f"j{i}" for i in range(1, 7))


def chain(folder: Path, text: str, **changes) -> Chain:
    name = "arm.urdf" if "<robot" in text else "arm.xml"
    (folder / name).write_text(text)
    declared = {"file": name, "joints": PLANAR_SPEC.joints if name == "arm.urdf" else SIX_JOINTS, "tip": "hand"}
    return Chain(KinematicsSpec(**{**declared, **changes}), folder)


@pytest.fixture(scope="module")
def six(tmp_path_factory) -> Chain:
    return chain(tmp_path_factory.mktemp("six"), SIX, tip="grip", root="mount")


def error_of(chain: Chain, joints, position, rotation):
    """Worst distance in metres and turn in radians between the chain's poses and the given ones."""
    found, turned = chain.forward(joints)
    turn = Rotation.from_matrix((turned @ np.swapaxes(rotation, -1, -2)).reshape(-1, 3, 3)).magnitude()
    return np.linalg.norm(found - position, axis=-1).max(), turn.max()


def test_forward_agrees_with_a_planar_arm_by_hand(tmp_path: Path) -> None:
    arm = chain(tmp_path, PLANAR)
    q = np.random.default_rng(0).uniform(-2, 2, (5, 4, 3))
    position, rotation = arm.forward(q)
    a, b, c = np.moveaxis(q, -1, 0)
    by_hand = np.stack([0.4 * np.cos(a) + 0.3 * np.cos(a + b), 0.4 * np.sin(a) + 0.3 * np.sin(a + b), 0.1 - c], -1)
    assert np.allclose(position, by_hand, atol=1e-12)
    assert np.allclose(rotation.reshape(-1, 3, 3), Rotation.from_euler("z", (a + b).reshape(-1, 1)).as_matrix())
    assert np.allclose(arm.low, [-2, -np.inf, 0])
    assert np.allclose(arm.high, [2, np.inf, 0.2])


def test_the_root_is_the_frame_and_the_order_is_the_declared_one(tmp_path: Path) -> None:
    q = np.array([0.3, -0.4, 0.1])
    whole = chain(tmp_path, PLANAR)
    upper = chain(tmp_path, PLANAR, root="upper", joints=("slide", "elbow"))
    position, rotation = upper.forward(q[[2, 1]])
    first = Rotation.from_euler("z", q[0]).as_matrix()
    assert np.allclose(first @ position + [0, 0, 0.1], whole.forward(q)[0])
    assert np.allclose(first @ rotation, whole.forward(q)[1])


def test_forward_agrees_with_the_simulator_on_every_feature_of_mjcf(tmp_path: Path) -> None:
    """MuJoCo's own kinematics of the same file (without its mesh), in the world and seen from the mount."""
    (tmp_path / "plain.xml").write_text(
        SIX.replace('<geom type="mesh" mesh="m"/>', '<geom size="0.1"/>')
        .replace('<mesh name="m" file="missing.stl"/>', "")
        .replace('<body name="finger">', '<body name="finger"><geom size="0.1"/>')
        .replace("<joint name=", '<geom size="0.1"/><joint name=')
    )
    model = mujoco.MjModel.from_xml_path(str(tmp_path / "plain.xml"))
    data = mujoco.MjData(model)
    world, mount = chain(tmp_path, SIX, tip="grip"), chain(tmp_path, SIX, tip="grip", root="mount")
    for q in np.random.default_rng(1).uniform(-2, 2, (20, 6)):
        data.qpos[[model.joint(name).qposadr[0] for name in SIX_JOINTS]] = q
        mujoco.mj_kinematics(model, data)
        position, rotation = data.site("grip").xpos, data.site("grip").xmat.reshape(3, 3)
        assert np.allclose(world.forward(q)[0], position, atol=1e-9)
        assert np.allclose(world.forward(q)[1], rotation, atol=1e-9)
        base, turn = data.body("mount").xpos, data.body("mount").xmat.reshape(3, 3)
        assert np.allclose(mount.forward(q)[0], turn.T @ (position - base), atol=1e-9)
        assert np.allclose(mount.forward(q)[1], turn.T @ rotation, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.0, 0.4))
def test_joints_come_back_from_their_pose(six: Chain, seed: int, aside: float) -> None:
    """Within 0.1 mm and 0.01 deg, within limits, and no further away than the seed would suggest."""
    random = np.random.default_rng(seed)
    low, high = np.maximum(six.low, -3), np.minimum(six.high, 3)
    joints = random.uniform(low, high, (3, 6))
    near = np.clip(joints + random.uniform(-aside, aside, joints.shape), low, high)
    found = six.inverse(*six.forward(joints), near)
    distance, turn = error_of(six, found, *six.forward(joints))
    assert distance < 1e-4
    assert turn < np.deg2rad(0.01)
    assert (found >= six.low).all()
    assert (found <= six.high).all()


def test_the_answer_stays_on_the_seeds_branch(six: Chain) -> None:
    joints = np.random.default_rng(3).uniform(-0.9, 0.9, (200, 6)) + np.array([0, 0.5, 0.8, 0, 0.9, 0])
    found = six.inverse(*six.forward(joints), joints + 0.02)
    assert np.median(np.abs(found - joints).max(axis=1)) < 1e-3
    assert np.quantile(np.abs(found - joints).max(axis=1), 0.95) < 0.1
    assert np.array_equal(six.inverse(*six.forward(joints[0]), joints[0]), joints[0])


def test_a_far_seed_still_finds_nearly_every_pose(six: Chain) -> None:
    random = np.random.default_rng(4)
    low, high = np.maximum(six.low, -3), np.minimum(six.high, 3)
    joints, seeds = random.uniform(low, high, (2, 100, 6))
    position, rotation = six.forward(joints)
    found, _ = six.forward(six.inverse(position, rotation, seeds))
    assert (np.linalg.norm(found - position, axis=1) < 1e-4).mean() >= 0.97


def test_a_path_is_followed_without_leaps(six: Chain) -> None:
    time = np.linspace(0, 1, 40)[:, None]
    joints = np.array([0.2, 0.5, 0.6, 0.1, 0.8, -0.3]) + time * np.array([0.8, -0.5, 0.7, 1.0, -0.6, 1.2])
    found = six.follow(*six.forward(joints), joints[0] + 0.01)
    assert np.abs(np.diff(found, axis=0)).max() < 0.1
    assert error_of(six, found, *six.forward(joints))[0] < 1e-4


def test_what_cannot_be_reached_is_the_nearest_or_an_error(six: Chain) -> None:
    _, upright = six.forward(np.zeros(6))
    far = np.array([3.0, 0.0, 0.0])
    joints = six.inverse(far, upright, np.zeros(6))
    assert (joints >= six.low).all()
    assert (joints <= six.high).all()
    assert six.forward(joints)[0][0] > 0.5  # stretched out towards it
    with pytest.raises(XvlaError, match="pose 0 cannot be reached"):
        six.inverse(far, upright, np.zeros(6), tolerance=(1e-4, 1e-3))
    with pytest.raises(XvlaError, match="not finite"):
        six.inverse(far * np.nan, upright, np.zeros(6))
    with pytest.raises(XvlaError, match="another size"):
        six.forward(np.zeros(5))


def test_a_prismatic_limit_is_respected(tmp_path: Path) -> None:
    arm = chain(tmp_path, PLANAR)
    position, rotation = arm.forward([0.3, 0.4, 0.2])
    joints = arm.inverse(position - [0, 0, 0.5], rotation, [0.3, 0.4, 0.1])
    assert joints[2] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        (PLANAR, {"tip": "claw"}, "claw"),
        (PLANAR, {"root": "floor"}, "floor"),
        (PLANAR, {"joints": ("shoulder", "wrist")}, "wrist"),
        (PLANAR, {"joints": ("shoulder", "slide")}, "elbow"),
        (PLANAR, {"joints": ("shoulder", "shoulder", "slide")}, "twice"),
        (PLANAR, {"tip": "lower"}, "does not move the tip"),
        (PLANAR, {"tip": "upper", "root": "hand", "joints": ("shoulder",)}, "does not lead to the tip"),
        (PLANAR.replace('child link="upper"', 'child link="base"'), {}, "ring|two joints|root link"),
        (PLANAR.replace('parent link="base"', 'parent link="hand"'), {}, "ring"),
        (PLANAR.replace('child link="lower"', 'child link="upper"'), {}, "child of two joints"),
        (PLANAR.replace('child link="lower"', 'child link="gone"'), {}, "unknown link"),
        (PLANAR.replace('type="continuous"', 'type="floating"'), {}, "cannot be read as a robot"),
        (PLANAR.replace('xyz="0.4 0 0"', 'xyz="nan 0 0"'), {}, "origin.xyz"),
        (PLANAR.replace('xyz="0.4 0 0"', 'xyz="wide"'), {}, "cannot be read as a robot"),
        (PLANAR.replace("</robot>", ""), {}, "not valid XML"),
        ("<robot/>", {}, "root link"),
        ("<scene><robot/></scene>", {}, "neither URDF nor MJCF"),
        ("", {"file": "arm.xml"}, "not valid XML"),
        (SIX.replace('<joint name="j4"/>', "<freejoint/>"), {"tip": "grip"}, "j4|cannot be read"),
        (SIX.replace('<joint name="j4"/>', '<joint name="j4" type="ball"/>'), {"tip": "grip"}, "several degrees"),
        (SIX.replace('class="pitch"', 'class="yaw"', 2), {"tip": "grip"}, "cannot be read|is not in"),
        (SIX.replace('quat="0.9 0.1 0.2 -0.1"', 'quat="1e200 1e200 0 0"'), {"tip": "grip"}, "rotation that is none"),
        (SIX, {"tip": "finger"}, r"found f\."),
    ],
)
def test_a_file_that_does_not_fit_is_one_clear_line(tmp_path: Path, text: str, changes: dict, message: str) -> None:
    with pytest.raises(XvlaError, match=message) as caught:
        chain(tmp_path, text, **changes)
    assert "\n" not in str(caught.value)


BOMB = '<!DOCTYPE r [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><robot name="&b;"/>'
OUTSIDE = '<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><robot name="r">&x;</robot>'


@pytest.mark.parametrize("text", [BOMB, OUTSIDE, '<!DOCTYPE r SYSTEM "http://example.org/x.dtd"><robot/>'])
def test_entities_are_not_read(tmp_path: Path, text: str) -> None:
    with pytest.raises(XvlaError, match="document type"):
        chain(tmp_path, text)


def test_huge_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(XvlaError, match="nests more"):
        chain(tmp_path, "<mujoco><worldbody>" + "<body>" * 5000 + "</body>" * 5000 + "</worldbody></mujoco>")
    with pytest.raises(XvlaError, match="elements"):
        chain(tmp_path, '<robot name="r">' + "<link/>" * (robot_file.MOST_ELEMENTS + 1) + "</robot>")
    monkeypatch.setattr(robot_file, "LARGEST_FILE", 100)
    with pytest.raises(XvlaError, match="larger than"):
        chain(tmp_path, PLANAR)


def test_nothing_outside_the_plugin_folder_is_opened(tmp_path: Path) -> None:
    folder = tmp_path / "plugin"
    (folder / "robot").mkdir(parents=True)
    (tmp_path / "outside.xml").write_text(SIX)
    (folder / "link.xml").symlink_to(tmp_path / "outside.xml")
    for file in ("../outside.xml", str(tmp_path / "outside.xml"), "link.xml", "robot/../../outside.xml"):
        with pytest.raises(XvlaError, match="outside the plugin folder"):
            Chain(KinematicsSpec(file=file, joints=SIX_JOINTS, tip="grip"), folder)
    for file in ("none.xml", "robot", "a\0b"):
        with pytest.raises(XvlaError, match=r"no such file|cannot be read"):
            Chain(KinematicsSpec(file=file, joints=SIX_JOINTS, tip="grip"), folder)
    (folder / "scene.xml").write_text('<mujoco><include file="../outside.xml"/></mujoco>')
    with pytest.raises(XvlaError, match="outside the plugin folder"):
        Chain(KinematicsSpec(file="scene.xml", joints=SIX_JOINTS, tip="grip"), folder)


def test_includes_inside_the_plugin_folder_are_read_once(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/arm.xml").write_text(SIX)
    (tmp_path / "scene.xml").write_text('<mujoco><include file="parts/arm.xml"/><worldbody/></mujoco>')
    scene = Chain(KinematicsSpec(file="scene.xml", joints=SIX_JOINTS, tip="grip"), tmp_path)
    alone = Chain(KinematicsSpec(file="parts/arm.xml", joints=SIX_JOINTS, tip="grip"), tmp_path)
    assert np.array_equal(scene.forward(np.ones(6))[0], alone.forward(np.ones(6))[0])
    (tmp_path / "ring.xml").write_text('<mujoco><include file="ring.xml"/></mujoco>')
    with pytest.raises(XvlaError, match="included twice"):
        Chain(KinematicsSpec(file="ring.xml", joints=SIX_JOINTS, tip="grip"), tmp_path)


def test_a_missing_library_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(XvlaError, match=r"xvla-platform\[kinematics\]"):
        chain(tmp_path, PLANAR)


ROBOSUITE = importlib.util.find_spec("robosuite")


@pytest.mark.skipif(ROBOSUITE is None, reason="needs the [sim] extra")
@pytest.mark.parametrize("robot", ["panda", "ur5e"])
def test_real_arms_agree_with_the_simulator(robot: str) -> None:
    """The robot's file with its meshes, loaded by MuJoCo itself, at 50 configurations, and back."""
    folder = Path(next(iter(ROBOSUITE.submodule_search_locations))) / f"models/assets/robots/{robot}"
    model = mujoco.MjModel.from_xml_path(str(folder / "robot.xml"))
    data = mujoco.MjData(model)
    names = tuple(model.joint(i).name for i in range(model.njnt))
    arm = Chain(KinematicsSpec(file="robot.xml", joints=names, tip="right_hand"), folder)
    random = np.random.default_rng(5)
    joints = random.uniform(np.maximum(arm.low, -3), np.minimum(arm.high, 3), (50, len(names)))
    position, rotation = arm.forward(joints)
    for q, at, turn in zip(joints, position, rotation, strict=True):
        data.qpos[:] = q
        mujoco.mj_kinematics(model, data)
        assert np.allclose(at, data.body("right_hand").xpos, atol=1e-9)
        assert np.allclose(turn, data.body("right_hand").xmat.reshape(3, 3), atol=1e-9)
    found = arm.inverse(position, rotation, joints + random.uniform(-0.2, 0.2, joints.shape))
    distance, turn = error_of(arm, found, position, rotation)
    assert distance < 1e-4
    assert turn < np.deg2rad(0.01)
