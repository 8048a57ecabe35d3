"""Text that is on every machine, in tokens: the sources of Python's standard library, with their documentation."""

import hashlib
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

VOCABULARY, LENGTH = 4096, 128
#: One file in so many is held out, whole: neighbouring pieces of one file say much about each other.
_HELD_OUT = 16


def files() -> list[Path]:
    """Every source file, in an order that the machine does not change."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    found = [path for path in folder.rglob("*.py") if "site-packages" not in path.parts]
    return sorted(found, key=lambda path: str(path.relative_to(folder)))


def digest() -> str:
    """Of all text."""
    seen = hashlib.sha256()
    for path in files():
        seen.update(path.read_bytes())
    return seen.hexdigest()[:16]


def tokens() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Training and held-out text by byte-pair encoding, learned on the former; both (sequences, LENGTH + 1)."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers  # noqa: PLC0415 (peers do without it)

    texts = [path.read_text("utf-8", errors="replace") for path in files()]
    held = {index for index in range(len(texts)) if index % _HELD_OUT == 0}
    train = [text for index, text in enumerate(texts) if index not in held]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        train, trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False)
    )
    return _cut(tokenizer, train), _cut(tokenizer, [texts[index] for index in sorted(held)])


def _cut(tokenizer: Any, texts: list[str]) -> NDArray[np.int64]:
    ids = np.concatenate([np.array(one.ids, np.int64) for one in tokenizer.encode_batch(texts)])
    length = LENGTH + 1
    return ids[: len(ids) // length * length].reshape(-1, length)
