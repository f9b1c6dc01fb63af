"""What stands between a camera or a sentence and the encoder's inputs.

In: uint8 RGB images of any size and instruction strings. Out: normalised float images and padded token ids, with
the checkpoint's own `preprocessor_config.json` and `tokenizer.json`. Numerically the same as transformers'
`CLIPImageProcessor` and BART tokenizer, without their import cost.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xvla_platform.errors import XvlaError
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.strategy import STRATEGIES, describe
from xvla_platform.platform.hub_errors import hub_errors
from xvla_platform.specs.embodiment import EmbodimentSpec

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
TOKENIZER_REPO = "facebook/bart-large"  # what the released checkpoints use; most carry it as tokenizer.json


@dataclass(frozen=True, kw_only=True)
class Processor:
    """Image and text preprocessing of one base.

    Attributes:
        size: Model input (height, width) in pixels; the aspect ratio is not kept, as published.
        resample: PIL filter number (3 = bicubic).
        mean, std: Per-channel normalisation of values in 0..1.
        tokenizer: A `tokenizers.Tokenizer`.
        max_length: Tokens an instruction is padded to; the padding is attended to, as published.
        description: Sentence about the robot that follows every instruction; None while the robot is still to be
            named, for a base whose strategy needs one (see `for_robot`).
    """

    size: tuple[int, int]
    resample: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    tokenizer: Any
    max_length: int
    pad_id: int
    description: str | None = ""

    @classmethod
    def from_folder(cls, folder: Path, config: XVLAConfig) -> Self:
        """Read the checkpoint's own files; a checkpoint without them has the published preprocessing."""
        data = _read(folder / "preprocessor_config.json")
        size = data.get("size", {"height": 224, "width": 224})
        if data.get("do_center_crop"):
            raise XvlaError(
                "centre cropping is not part of X-VLA's preprocessing",
                file=folder / "preprocessor_config.json",
                field="do_center_crop",
                allowed="false",
            )
        return cls(
            size=(int(size["height"]), int(size["width"])),
            resample=int(data.get("resample", 3)),
            mean=tuple(data.get("image_mean", IMAGENET_MEAN)),
            std=tuple(data.get("image_std", IMAGENET_STD)),
            tokenizer=_tokenizer(folder, str(config.raw.get("tokenizer_name") or TOKENIZER_REPO)),
            max_length=config.language_max_length,
            pad_id=int(config.florence.get("pad_token_id", 1)),
            description=None if STRATEGIES[config.strategy].describes else "",
        )

    def for_robot(self, robot: EmbodimentSpec) -> Self:
        """The processor of one robot: the same, but for a base whose instructions describe the robot."""
        return self if self.description == "" else replace(self, description=describe(robot))

    def resize(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 RGB [H, W, 3] → uint8 [size[0], size[1], 3], antialiased."""
        if image.shape[:2] == self.size:
            return image
        from PIL import Image

        height, width = self.size
        filter_ = Image.Resampling(self.resample)
        return np.asarray(Image.fromarray(image).resize((width, height), resample=filter_))

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 [..., H, W, 3] at model size → float32 [..., 3, H, W]."""
        scaled = images.movedim(-1, -3).float() * (1 / 255)
        return self.standardise(scaled)

    def standardise(self, scaled: Tensor) -> Tensor:
        """Float images [..., 3, H, W] in 0..1 → ImageNet-normalised."""
        mean = torch.tensor(self.mean, device=scaled.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=scaled.device).view(3, 1, 1)
        return (scaled - mean) / std

    def images(self, images: NDArray[np.uint8]) -> Tensor:
        """uint8 RGB [n, H, W, 3] → float32 [n, 3, h, w]."""
        return self.normalise(torch.from_numpy(np.stack([self.resize(image) for image in images])))

    def tokens(self, instruction: str) -> list[int]:
        """An instruction → `max_length` token ids; one that does not fit is refused, not cut."""
        assert self.description is not None, "this base's instructions describe the robot: use for_robot first"
        text = f"{instruction} {self.description}" if self.description else instruction
        ids = self.tokenizer.encode(text).ids
        if len(ids) > self.max_length:
            raise XvlaError(
                f"instruction has {len(ids)} tokens and this base reads {self.max_length}",
                field="instruction",
                found=text,
                hint="shorten the robot's description in plugin.yaml"
                if self.description
                else "shorten the instruction",
            )
        return ids + [self.pad_id] * (self.max_length - len(ids))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise XvlaError(f"cannot be read: {error}", file=path) from None


def _tokenizer(folder: Path, repo: str) -> Any:
    from tokenizers import Tokenizer
    from tokenizers.implementations import ByteLevelBPETokenizer
    from tokenizers.processors import RobertaProcessing

    path = folder / "tokenizer.json"
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    if path.is_file():
        tokenizer = Tokenizer.from_file(str(path))
    elif vocabulary.is_file() and merges.is_file():
        bpe = ByteLevelBPETokenizer(str(vocabulary), str(merges))
        bpe.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
        tokenizer = bpe._tokenizer
    else:
        tokenizer = _hub_tokenizer(repo)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _hub_tokenizer(repo: str) -> Any:
    from huggingface_hub import hf_hub_download
    from tokenizers import Tokenizer

    try:
        with hub_errors(repo, None, "fetch its tokenizer"):
            path = hf_hub_download(repo, "tokenizer.json")
    except XvlaError as error:
        raise XvlaError(
            f"the checkpoint has no tokenizer and {repo} cannot be fetched: {error.message}",
            hint="put tokenizer.json into the checkpoint folder, or connect to the Hub once",
        ) from None
    return Tokenizer.from_file(path)
