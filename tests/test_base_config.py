"""Views, spaces and vectors of a base: the robot is checked against exactly the model that will be built."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapt_helpers import command, small_config, write_place
from conftest import write_base
from data_helpers import joints, make_spec

from xvla_platform.data.binding import Binding
from xvla_platform.errors import XvlaError
from xvla_platform.evaluation.open_loop import field_errors, predict_chunks
from xvla_platform.modelling.checkpoint import random_model
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.platform.bases import resolve_base
from xvla_platform.platform.embodiments import base_space

AUTO = {"action_mode": "auto", "real_action_dim": 7, "max_action_dim": 20}


def lerobot(**changes: Any) -> dict[str, Any]:
    """LeRobot's form, which states the robot's width as the shape of its action feature."""
    config = small_config(action_mode="auto") | {"type": "xvla", "chunk_size": 10}
    del config["model_type"]
    return config | {"output_features": {"action": {"type": "ACTION", "shape": [7]}}, **changes}


def written(folder: Path, config: dict[str, Any]) -> Path:
    write_base(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "domains.json").write_text('{"0": "robot0"}')
    return folder


@pytest.mark.parametrize(
    ("config", "preprocessor", "views"),
    [
        ({"num_image_views": 1, "num_views": 2}, {"num_views": 4}, 1),
        ({"num_views": 2}, {"num_views": 4}, 2),
        ({}, {"num_views": 4}, 4),
        ({}, {}, 3),
    ],
)
def test_platform_and_model_count_the_same_views(
    tmp_path: Path, config: dict[str, Any], preprocessor: dict[str, Any], views: int
) -> None:
    plain = {key: value for key, value in small_config().items() if key not in ("num_views", "num_image_views")}
    folder = written(tmp_path / "base", plain | config)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    assert resolve_base(str(folder)).num_views == XVLAConfig.from_folder(folder).num_views == views


def test_a_camera_too_many_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """On a base of one view (`num_views`), the robot's second camera."""
    place = write_place(tmp_path / "place")
    path = place / "base" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_views": 1, "num_image_views": None}))
    assert command("add-embodiment", "plugins/my_arm", "--base", "base", cwd=place) == 2
    assert "was trained with 1 views" in capfd.readouterr().err
    assert not (place / "embodiments" / "my_arm").exists()


@pytest.mark.parametrize("config", [small_config(**AUTO), lerobot(), lerobot(max_state_dim=32)])
def test_an_auto_base_with_padding_works_from_end_to_end(tmp_path: Path, config: dict[str, Any]) -> None:
    """Seven real numbers of twenty: the answer has its padding cut and is decoded, compared and sent."""
    folder = written(tmp_path / "base", config)
    read = XVLAConfig.from_folder(folder)
    space = base_space(resolve_base(str(folder)))
    assert space == read.space
    assert (space.dim, space.real_dim) == (20, 7)
    fields = [joints(7)]
    binding = Binding(make_spec(fields, fields), space, "rot6d_interleaved")
    state = np.random.default_rng(0).normal(size=(3, 7))
    answer = predict_chunks(
        _model(read),
        features=(torch.zeros(3, 12, 32), torch.zeros(3, 4, 32)),
        proprio=torch.from_numpy(binding.proprio(state)),
        domain_id=0,
        seed=0,
    )
    assert answer.shape[-1] == 7
    target = np.zeros((3, answer.shape[1], 20), dtype=np.float32)
    assert all(np.isfinite(list(field_errors(binding, answer, target).values())))
    assert binding.to_columns(answer[0], state[0]).shape == (answer.shape[1], 7)
    padded = np.concatenate([answer, np.ones((*answer.shape[:2], 13), np.float32)], axis=-1)
    for name, values in binding.decode(answer).items():
        np.testing.assert_array_equal(values, binding.decode(padded)[name])


def test_a_narrow_proprio_vector_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "base", lerobot(max_state_dim=8))
    with pytest.raises(XvlaError, match="max_state_dim: the base's proprio vector is narrower"):
        base_space(resolve_base(str(folder)))


def test_a_real_width_beyond_the_vector_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "base", small_config(**AUTO | {"real_action_dim": 21}))
    with pytest.raises(XvlaError, match="real_action_dim: is wider"):
        base_space(resolve_base(str(folder)))


def _model(config: XVLAConfig) -> XVLA:
    return random_model(config, 0).eval()
