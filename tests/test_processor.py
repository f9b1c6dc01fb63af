"""Images and words reach the encoder exactly as transformers' own processors would have prepared them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from adapt_helpers import PIXELS, SENTENCES, smooth_image, write_small_base

from xvla_platform.errors import XvlaError
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.processor import Processor


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_base(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture
def processor(base: Path) -> Processor:
    return Processor.from_folder(base, XVLAConfig.from_folder(base))


@pytest.mark.parametrize("size", [(48, 64), (64, 64), (240, 320), (97, 131), (500, 31)])
def test_images_equal_clips(base: Path, processor: Processor, size: tuple[int, int]) -> None:
    """Resampling, rounding and normalisation; an image at model size is not touched."""
    transformers = pytest.importorskip("transformers")
    clip = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
    reference = clip.from_pretrained(str(base))
    generator = np.random.default_rng(sum(size))
    noise = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
    smooth = np.ascontiguousarray(smooth_image(512, 1)[: size[0], : size[1]])
    for image in (noise, smooth):
        expected = np.asarray(reference(image, return_tensors="np")["pixel_values"][0])
        found = processor.images(image[None])[0].numpy()
        assert found.shape == expected.shape == (3, PIXELS, PIXELS)
        assert np.abs(found - expected).max() <= 1e-6


@pytest.mark.parametrize(
    "text",
    [*SENTENCES[:2], "", "Lift", " lift  the cube ", "grüße", "世界", "lift the cube 0\n", "<s> lift </s>", "a.b-c's"],
)
def test_words_equal_barts(base: Path, processor: Processor, text: str) -> None:
    """The same ids as transformers' fast tokenizer from the same files, padded to the fixed length."""
    transformers = pytest.importorskip("transformers")
    for kind in ("BartTokenizerFast", "PreTrainedTokenizerFast"):
        options = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
        if kind == "BartTokenizerFast":
            reference = transformers.BartTokenizerFast.from_pretrained(str(base))
        else:
            reference = transformers.PreTrainedTokenizerFast(tokenizer_file=str(base / "tokenizer.json"), **options)
        expected = reference(text, padding="max_length", max_length=processor.max_length)["input_ids"]
        assert processor.tokens(text) == list(expected), kind


def test_the_vocabulary_files_alone_give_the_same_ids(base: Path, processor: Processor, tmp_path: Path) -> None:
    """A checkpoint may carry vocab.json and merges.txt without tokenizer.json."""
    for name in ("config.json", "vocab.json", "merges.txt", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((base / name).read_bytes())
    other = Processor.from_folder(tmp_path, XVLAConfig.from_folder(tmp_path))
    for text in (*SENTENCES, "unseen words"):
        assert other.tokens(text) == processor.tokens(text)


def test_a_sentence_is_framed_and_padded(processor: Processor) -> None:
    """<s> words </s> <pad>…: ids 0, 2 and 1, as BART's."""
    ids = processor.tokens(SENTENCES[0])
    assert len(ids) == 16
    assert ids[0] == 0
    end = ids.index(2)
    assert set(ids[end + 1 :]) == {1}


def test_an_instruction_that_does_not_fit_is_refused(processor: Processor) -> None:
    """It is not cut: the robot would be told something else."""
    with pytest.raises(XvlaError, match=r"instruction has \d+ tokens and this base reads 16") as caught:
        processor.tokens("put the seventh green cube into the drawer on the left")
    assert "seventh green" in str(caught.value)


def test_cropping_is_refused_and_defaults_are_published(base: Path, tmp_path: Path) -> None:
    """A preprocessing that we do not do is an error; a checkpoint without one has 224 pixels and ImageNet's values."""
    for path in base.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    settings = tmp_path / "preprocessor_config.json"
    data = json.loads(settings.read_text())
    settings.write_text(json.dumps({**data, "do_center_crop": True}))
    with pytest.raises(XvlaError, match="do_center_crop"):
        Processor.from_folder(tmp_path, XVLAConfig.from_folder(tmp_path))
    settings.unlink()
    published = Processor.from_folder(tmp_path, XVLAConfig.from_folder(tmp_path))
    assert published.size == (224, 224)
    black = published.images(np.zeros((1, 8, 8, 3), dtype=np.uint8))[0, :, 0, 0]
    torch.testing.assert_close(black, torch.tensor([-2.1179, -2.0357, -1.8044]), atol=1e-4, rtol=0)
