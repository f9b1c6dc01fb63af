"""A small random base, a robot with three or more episodes, and ways to run, stop and inspect the command line."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, ROBOT, write_plugin
from data_helpers import write_dataset
from torch import Tensor

from xvla_platform.adapt.tokenizer import train_tokenizer
from xvla_platform.modelling.checkpoint import random_model, save_model
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.processor import IMAGENET_MEAN, IMAGENET_STD
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.platform.workspace import CONFIG_NAME, CONFIG_TEXT

# Every test has a home of its own; matplotlib's font cache, which takes seconds, need not be made for each.
os.environ.setdefault("MPLCONFIGDIR", str(Path(tempfile.gettempdir()) / f"xvla-tests-matplotlib-{os.getuid()}"))
PIXELS = 64
TOKENS = 2 * 2 + 1  # of a 64 pixel view: one pooled, then the grid
SENTENCES = [f"lift the cube {i}" for i in range(9)]
STOP_AT = "XVLA_TEST_STOP_AT"
STOPPER = f'''
import os, signal
from xvla_platform.hooks import hookimpl

@hookimpl
def step_finished(stage, step, metrics):
    wanted = os.environ.get("{STOP_AT}", "").split(":")
    if wanted[:2] == [stage.name, str(step)]:
        os.kill(os.getpid(), getattr(signal, wanted[2]))
'''


def small_config(vocabulary: int = 300, **changes: Any) -> dict[str, Any]:
    """`config.json` of a model that computes in milliseconds and has every part of the real one."""
    text = {
        "vocab_size": vocabulary,
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "max_position_embeddings": 64,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "activation_function": "gelu",
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }
    vision = {
        "drop_path_rate": 0.0,
        "patch_size": [7, 3, 3, 3],
        "patch_stride": [4, 2, 2, 2],
        "patch_padding": [3, 1, 1, 1],
        "patch_prenorm": [False, True, True, True],
        "dim_embed": [8, 16, 16, 32],
        "num_heads": [2, 2, 2, 2],
        "num_groups": [2, 2, 2, 2],
        "depths": [1, 1, 1, 1],
        "window_size": 3,
        "projection_dim": 32,
        "visual_temporal_embedding": {"type": "COSINE", "max_temporal_embeddings": 4},
        "image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": 8},
        "image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"],
    }
    florence = {"projection_dim": 32, "vocab_size": vocabulary, "pad_token_id": 1}
    config = {
        "model_type": "xvla",
        "hidden_size": 32,
        "depth": 2,
        "num_heads": 2,
        "mlp_ratio": 2.0,
        "num_domains": 6,
        "len_soft_prompts": 2,
        "dim_time": 8,
        "max_len_seq": 64,
        "num_actions": 10,
        "action_mode": "ee6d",
        "num_views": 2,
        "language_max_length": 16,
        "florence_config": {**florence, "vision_config": vision, "text_config": text},
    }
    return {**config, **changes}


def small_model(seed: int = 0, **changes: Any) -> XVLA:
    """A random small model in evaluation mode, frozen as a loaded one is."""
    model = random_model(XVLAConfig.from_dict(small_config(**changes)), seed).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def small_batch(domains: list[int], model: XVLA, seed: int = 0) -> dict[str, Any]:
    """Training inputs with cached features; `domains` may have one entry a sample or a single one."""
    generator = torch.Generator().manual_seed(seed)
    batch, config = 4, model.config

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "domain_id": torch.tensor(domains),
        "proprio": random(batch, config.dim_proprio),
        "action": random(batch, config.num_actions, config.dim_action),
        "noise": random(batch, config.num_actions, config.dim_action),
        "t": torch.rand(batch, generator=generator),
        "features": (random(batch, TOKENS + 16, 32), random(batch, TOKENS, 32)),
    }


@torch.no_grad()
def predicted(model: XVLA, domains: list[int], seed: int = 0, **changes: Tensor) -> Tensor:
    """The model's answer to `small_batch`, with some of its inputs changed."""
    batch = {**small_batch(domains, model, seed), **changes}
    return model.predict(
        domain_id=batch["domain_id"],
        vlm_features=batch["features"][0],
        aux_visual_inputs=batch["features"][1],
        proprio=batch["proprio"],
        noisy_action=batch["action"],
        t=batch["t"],
    )


def write_small_base(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """A base folder as `xvla pretrain` leaves one, with random weights; rows 0-2 are taken."""
    folder.mkdir(parents=True)
    vocabulary = train_tokenizer(SENTENCES, 300, folder)
    save_model(random_model(XVLAConfig.from_dict(small_config(vocabulary, **changes)), seed), folder)
    preprocessing = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"height": PIXELS, "width": PIXELS},
        "resample": 3,
        "do_center_crop": False,
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    (folder / "domains.json").write_text(json.dumps({str(i): f"robot{i}" for i in range(3)}))
    return folder


def write_place(root: Path, lengths: tuple[int, ...] = (12, 9, 15, 10), robot: dict[str, Any] | None = None) -> Path:
    """A workspace with `base/` and the plugin `my_arm`, whose hooks can stop a run at a step (see `stop_at`)."""
    root.mkdir(parents=True, exist_ok=True)
    (root / CONFIG_NAME).write_text(CONFIG_TEXT)
    write_small_base(root / "base")
    plugin = write_plugin(root / "plugins" / "my_arm", robot or ROBOT)
    (plugin / "plugin.py").write_text(STOPPER)
    write_dataset(plugin / "demonstrations", lengths)
    return root


def stop_at(stage: str, step: int, how: signal.Signals = signal.SIGKILL) -> dict[str, str]:
    """Environment in which a run of `my_arm` gets a signal when that step has finished."""
    return {STOP_AT: f"{stage}:{step}:{how.name}"}


def start(*words: str, cwd: Path, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    """The command line in a process of its own, without waiting for it."""
    return subprocess.Popen(
        [sys.executable, "-m", "xvla_platform.cli.main", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def torchrun(*words: str, cwd: Path, processes: int, **options: Any) -> subprocess.Popen[str]:
    """The command line under torchrun, as a user starts it, without waiting for it."""
    return subprocess.Popen(
        [
            sys.executable,
            *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)),
            *("-m", "xvla_platform", *words),
        ],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def command(*words: str, cwd: Path) -> int:
    """The command line in this process, which is quicker; returns the exit code."""
    from xvla_platform.cli.main import main

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.setenv("XDG_CACHE_HOME", str(cwd / ".cache"))
        for name in ("XVLA_WORKSPACE", STOP_AT):
            patch.delenv(name, raising=False)
        with pytest.raises(SystemExit) as left:
            main(words)
    return int(left.value.code or 0)


def smooth_image(size: int, seed: int) -> np.ndarray:
    """A picture with a photograph's smoothness: random colours on a coarse grid, interpolated, with slight noise."""
    from PIL import Image

    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)).astype(float)
    return (image + generator.normal(0, 2, image.shape)).clip(0, 255).astype(np.uint8)


def generated(model: XVLA, batch: dict[str, Any], **options: Any) -> Tensor:
    """A chunk of the model for a `small_batch`."""
    inputs = {name: batch[name] for name in ("domain_id", "features", "proprio", "noise")}
    return model.generate(**inputs, **options)
