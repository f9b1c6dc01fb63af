"""What `config.json` of a base says about views and vectors, in one place for every reader.

In: the mapping of either public form, official or LeRobot's. Out: views, action space and proprio width, so that a
robot is checked against exactly the model that will be built.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xvla_platform.errors import XvlaError
from xvla_platform.platform.files import read_json
from xvla_platform.specs.action_space import SPACES, ActionSpace, action_space

PUBLISHED_VIEWS = 3  # the public processor keeps this number in code
PUBLISHED_DIM = 20


def positive(config: Mapping[str, Any], keys: tuple[str, ...], default: int, file: Path | str) -> int:
    """The first of `keys` that is stated; anything but a positive whole number is refused."""
    for key in keys:
        value = config.get(key)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise XvlaError("expected a positive whole number", file=file, field=key, found=value)
        return value
    return default


def view_count(config: Mapping[str, Any], folder: Path | None, file: Path | str) -> int:
    """Image views: `num_image_views`, `num_views`, what the preprocessor in `folder` states, or the published 3."""
    path = None if folder is None else folder / "preprocessor_config.json"
    stated = read_json(path) if path is not None and path.is_file() else {}
    views = stated.get("num_views") if isinstance(stated, dict) else None
    default = views if isinstance(views, int) and views > 0 else PUBLISHED_VIEWS
    return positive(config, ("num_image_views", "num_views"), default, file)


def config_space(config: Mapping[str, Any], file: Path | str) -> ActionSpace:
    """The action space. For `auto`, LeRobot states the real width as the shape of its action feature."""
    mode = str(config.get("action_mode") or "ee6d").lower()
    if mode not in SPACES:
        raise XvlaError("unknown action space", file=file, field="action_mode", found=mode, allowed=sorted(SPACES))
    if mode != "auto":
        return action_space(mode)
    dim = positive(config, ("max_action_dim",), PUBLISHED_DIM, file)
    stated = positive(config, ("real_action_dim",), 0, file)
    real = stated or _output_width(config) or min(dim, PUBLISHED_DIM)
    if real > dim:
        raise XvlaError(
            "is wider than the model's action vector",
            file=file,
            field="real_action_dim",
            found=real,
            allowed=f"at most {dim} (max_action_dim)",
        )
    return action_space(mode, dim=dim, real_dim=real)


def proprio_width(config: Mapping[str, Any], space: ActionSpace, file: Path | str) -> int:
    """Width of the model's proprio vector: LeRobot may state its own, the official form has the action's."""
    return positive(config, ("max_state_dim",), space.dim, file) if config.get("type") == "xvla" else space.dim


def _output_width(config: Mapping[str, Any]) -> int | None:
    features = config.get("output_features")
    action = features.get("action") if isinstance(features, dict) else None
    shape = action.get("shape") if isinstance(action, dict) else None
    return int(shape[0]) if shape else None
