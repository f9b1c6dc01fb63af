"""`example_batch.safetensors`: one real observation inside the artifact, and the chunk the policy answered.

Whoever pulls an adaptation can check it without the dataset: the same weights must answer the same chunk.
Images are stored at the model's size as PNG bytes.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from xvla_platform.errors import XvlaError
from xvla_platform.platform.files import write_bytes
from xvla_platform.policy.policy import Observation

NAME = "example_batch.safetensors"


@dataclass(frozen=True, kw_only=True)
class Example:
    """An observation, the noise seed, and the chunk [T, dim] in model units."""

    observation: Observation
    seed: int
    chunk: NDArray[np.float32]


def save_example(folder: Path, example: Example) -> None:
    """Write the example beside the adapter."""
    from PIL import Image

    tensors: dict[str, NDArray] = {
        "state": np.asarray(example.observation.state, dtype=np.float64),
        "chunk": np.ascontiguousarray(example.chunk, dtype=np.float32),
    }
    for name, image in example.observation.images.items():
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="PNG", optimize=True)
        tensors[f"image.{name}"] = np.frombuffer(buffer.getvalue(), dtype=np.uint8)
    about = {"instruction": example.observation.instruction, "seed": example.seed}
    write_bytes(folder / NAME, save(tensors, metadata={"xvla": json.dumps(about, sort_keys=True)}))


def load_example(folder: Path) -> Example:
    """Read the example of an artifact."""
    from PIL import Image

    try:
        with safe_open(folder / NAME, framework="np") as handle:
            about = json.loads(handle.metadata()["xvla"])
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118  (not a mapping)
        images = {
            key.removeprefix("image."): np.asarray(
                Image.open(io.BytesIO(data.tobytes()), formats=["PNG"]).convert("RGB")
            )
            for key, data in tensors.items()
            if key.startswith("image.")
        }
        observation = Observation(images=images, state=tensors["state"], instruction=str(about["instruction"]))
        return Example(observation=observation, seed=int(about["seed"]), chunk=tensors["chunk"])
    except (OSError, KeyError, ValueError, TypeError, SafetensorError) as error:
        raise XvlaError(f"the example cannot be read: {error}", file=folder / NAME) from None
