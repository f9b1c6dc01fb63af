"""From recorded video to model-ready batches, without a cache: decode, resample, resize, normalise, tokens."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def batches(plugin_folder: Path, base: Path, batch: int) -> tuple[Callable[[int], Any], int]:
    """A function that makes batch after batch of samples drawn at random, and how many frames a batch decodes.

    Args:
        plugin_folder: A robot's declaration with its dataset.
        base: The base whose image size, words and action space the batches are for.
    """
    from xvla_platform.adapt.sources import build_source, frames_of, pixels
    from xvla_platform.data.binding import Binding
    from xvla_platform.data.conventions import Conventions
    from xvla_platform.data.samples import Samples, training_episodes
    from xvla_platform.data.statistics import compute_statistics
    from xvla_platform.modelling.config import XVLAConfig
    from xvla_platform.modelling.processor import Processor
    from xvla_platform.platform.embodiments import open_data
    from xvla_platform.platform.plugins import load_plugin

    plugin = load_plugin(plugin_folder)
    config = XVLAConfig.from_folder(base)
    processor = Processor.from_folder(base, config)
    reader = open_data(plugin.spec, plugin.folder)
    episodes = training_episodes(len(reader.episodes), plugin.spec.dataset.held_out)
    conventions = Conventions(plugin.spec, config.space, plugin.folder)
    statistics = compute_statistics(reader, plugin.spec, episodes, conventions=conventions)
    binding = Binding(plugin.spec, config.space, config.rotation_layout, statistics, folder=plugin.folder)
    samples = Samples(reader, plugin.spec, binding, episodes, config.num_actions)
    source = build_source(samples, None, name=plugin.spec.name, domain_id=0, processor=processor, config=config)
    draw = np.random.default_rng(0)
    views = len(plugin.spec.ordered_cameras)

    def make(_: int) -> tuple[Any, ...]:
        rows = draw.integers(len(samples), size=batch)
        images = pixels(frames_of(samples, processor, rows), processor, views)
        return images, source.tokens[source.instruction_of[rows]], source.proprio[rows], source.action[rows]

    return make, batch * views
