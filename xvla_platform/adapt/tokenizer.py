"""The tokenizer of a small base: byte-level BPE in BART's format, trained on the instructions of its robots.

Bytes are always covered, so an instruction with unseen words becomes more tokens, never an unknown one.
"""

from pathlib import Path

from xvla_platform.platform.files import write_json

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")  # BART's ids 0, 1, 2, 3 and last


def train_tokenizer(instructions: list[str], vocabulary: int, folder: Path) -> int:
    """Write `tokenizer.json`, `vocab.json`, `merges.txt` and `tokenizer_config.json`; returns the vocabulary size."""
    from tokenizers import ByteLevelBPETokenizer
    from tokenizers.processors import RobertaProcessing

    bpe = ByteLevelBPETokenizer(add_prefix_space=False)
    bpe.train_from_iterator(
        instructions, vocab_size=vocabulary, min_frequency=1, special_tokens=list(SPECIAL), show_progress=False
    )
    bpe.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
    bpe.save(str(folder / "tokenizer.json"))
    bpe.save_model(str(folder))
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "BartTokenizer", "model_max_length": 1024})
    return int(bpe.get_vocab_size())
