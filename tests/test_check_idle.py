"""What `xvla check` advises against pauses leaves them out of training, although sensors are never quite still."""

import dataclasses

import numpy as np
import yaml
from conftest import REPOSITORY

from xvla_platform.check.context import make_context
from xvla_platform.check.episodes import idle
from xvla_platform.data.canonical import absolute_targets
from xvla_platform.data.resampling import idle_frames
from xvla_platform.platform.embodiments import open_data
from xvla_platform.platform.plugins import load_plugin
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
