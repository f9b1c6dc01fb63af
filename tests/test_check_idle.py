"""What `xvla check` advises against pauses leaves them out of training, although sensors are never quite still."""

import dataclasses

import numpy as np
import pytest
import yaml
from conftest import REPOSITORY

from xvla_platform.check.context import make_context
from xvla_platform.check.episodes import idle, left_out
from xvla_platform.data.binding import Binding
from xvla_platform.data.canonical import absolute_targets
from xvla_platform.data.resampling import idle_frames
from xvla_platform.data.samples import Samples
from xvla_platform.platform.embodiments import open_data
from xvla_platform.platform.plugins import load_plugin
from xvla_platform.specs.action_space import action_space
from xvla_platform.specs.embodiment import IdleSpec
from xvla_platform.testing.faults import FAULTS

NOISE_MM = 0.08


def test_the_advised_steps_leave_out_the_pauses_of_a_shaky_recording() -> None:
    plugin = load_plugin(REPOSITORY / "plugins" / "my_arm")
    (pauses,) = (fault for fault in FAULTS if fault.name == "idle")
    reader, spec = pauses.plant(open_data(plugin.spec, plugin.folder), plugin.spec, "both ends", 0)
    context = make_context(spec, reader, episodes=6)
    random = np.random.default_rng(0)
    shaken = []
    for episode in context.recording.episodes:
        parts = {}
        for vector in ("proprio", "action"):
            parts[vector] = getattr(episode, vector).copy()
            parts[vector][:, :3] += random.uniform(-NOISE_MM / 2, NOISE_MM / 2, (episode.length, 3))
        shaken.append(dataclasses.replace(episode, **parts))
    recording = dataclasses.replace(context.recording, episodes=tuple(shaken))
    (finding,) = idle(dataclasses.replace(context, recording=recording))

    def skipped(limits: IdleSpec) -> float:
        targets = [absolute_targets(spec, episode.proprio, episode.action) for episode in shaken]
        return float(np.concatenate([idle_frames(one, limits, spec.action.timing) for one in targets]).mean())

    assert finding.fix is not None
    advised = IdleSpec.model_validate(yaml.safe_load(finding.fix)["dataset"]["skip_idle"])
    assert skipped(IdleSpec()) < 0.05
    assert skipped(advised) > 0.9 * finding.numbers["share"] > 0.5


@pytest.mark.parametrize(
    ("step_mm", "severity"), [(0.01, "info"), (12.0, "warning"), (1e6, "error")], ids=["noise", "slow motion", "all"]
)
def test_what_skip_idle_leaves_out_is_said(step_mm: float, severity: str) -> None:
    """As many frames as training leaves out; most of them are a warning, all but the last an error."""
    plugin = load_plugin(REPOSITORY / "plugins" / "my_arm")
    limits = {"position_m": step_mm / 1000, "rotation_deg": 180.0, "gripper": 1.0}
    dataset = plugin.spec.dataset.model_copy(update={"skip_idle": IdleSpec.model_validate(limits)})
    spec = plugin.spec.model_copy(update={"dataset": dataset})
    reader = open_data(spec, plugin.folder)
    (finding,) = left_out(make_context(spec, reader, episodes=6))
    assert (finding.code, finding.severity) == ("XV425", severity)
    assert f"{finding.numbers['cut']} of {finding.numbers['frames']} frames" in finding.measured
    space = action_space("ee6d", dim=20, real_dim=20)
    chosen = [episode.index for episode in make_context(spec, reader, episodes=6).recording.episodes]
    samples = Samples(reader, spec, Binding(spec, space, "rot6d_interleaved", {}), chosen, 10)
    assert len(samples) == finding.numbers["frames"] - finding.numbers["cut"]
