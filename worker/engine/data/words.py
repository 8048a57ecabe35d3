"""Text -> the inputs of a model: what its own tokenizer makes of each line, padded to the longest of them."""

import base64
import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from worker.engine.data import codes, text
from worker.engine.data.samples import Array
from worker.engine.data.table import Table
from worker.engine.errors import InvalidDataset, InvalidModel
from worker.engine.network import Tokenizer

#: Model input -> attribute of an encoded text.
INPUTS: Final = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
#: How the files of tensors start; text has no zero bytes.
_BINARY: Final = (b"PK", b"PAR1", b"\x93NUMPY", b"\x80")
_AT_ONCE: Final = 1024
_MAX_STEPS: Final = 32
#: Times that normalizers may make a text longer; known tokenizers come to 4.
_MAX_GROWTH: Final = 16
#: Tokens that a tokenizer may put around a text; known ones add 3.
_MAX_ADDED: Final = 256
#: Bytes that one character may become in a normalizer of SentencePiece; Unicode's own longest are 33.
_LONGEST_REPLACEMENT: Final = 64
#: What makes matching a regular expression take longer than any count of steps shows: references to what a group
#: matched, calls of groups (recursion), conditions, absent operators. No known tokenizer has them.
_ENDLESS: Final = re.compile(r"\\(?:[1-9]|[kg]['<{])|\(\?(?:[(~&R0-9]|P[=>])|\\.", re.DOTALL)
#: How Rust's panics are called in Python; they are no Exception.
_PANIC: Final = "PanicException"


def is_text(path: Path) -> bool:
    """Whether the file is text, by how it starts."""
    with path.open("rb") as file:
        head = file.read(16)
    return bool(head) and b"\0" not in head and not head.startswith(_BINARY)


def encode(path: Path, tokenizer: Tokenizer | None, role: str) -> Table:
    """The samples of a text dataset as columns of int64, shape (samples, tokens of the longest).

    Raises:
        InvalidDataset: not text that can be read, or a model without a tokenizer.
        InvalidModel: a tokenizer that cannot be read, or not be used on these texts.
    """
    if tokenizer is None:
        raise InvalidDataset(
            codes.KIND_UNSUPPORTED,
            f"The {role} dataset is text, and the model came without a tokenizer. Upload the model as a folder of "
            "transformers with its tokenizer.json, or the dataset as tensors of token numbers.",
        )
    encoder, padding = _opened(tokenizer)
    rows: dict[str, list[list[int]]] = {name: [] for name in INPUTS}
    texts = iter(text.read(path))
    while lines := list(islice(texts, _AT_ONCE)):
        with _tokenizer_errors():
            encodings = encoder.encode_batch(lines)
        for name, attribute in INPUTS.items():
            # Its own tokens at the ends may be more than the model takes.
            rows[name] += [getattr(encoding, attribute)[: tokenizer.longest] for encoding in encodings]
    if not rows["input_ids"]:
        raise InvalidDataset(codes.TOO_FEW_SAMPLES, f"The {role} dataset holds no text.")
    width = max(map(len, rows["input_ids"]))
    fill = {"input_ids": padding.get("pad_id", _padding(encoder)), "token_type_ids": padding.get("pad_type_id", 0)}
    return {name: _padded(values, width, fill.get(name, 0)) for name, values in rows.items()}


@contextmanager
def _tokenizer_errors() -> Iterator[None]:
    """What the library raises, which is nothing narrower than Exception, as a refusal of the tokenizer."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != _PANIC:
            raise
        raise InvalidModel(
            codes.TOKENIZER_INVALID, f"The model's tokenizer.json cannot be used: {str(error)[:300]}"
        ) from error


def _opened(tokenizer: Tokenizer) -> tuple[Any, dict[str, Any]]:
    """The tokenizer set up to cut, and how it pads."""
    from tokenizers import Tokenizer as Encoder  # noqa: PLC0415  # only text needs it

    with _tokenizer_errors():
        definition = json.loads(tokenizer.definition)
        growth = math.prod(map(_growth, _steps(definition.get("normalizer"), definition.get("pre_tokenizer"))))
        if growth > _MAX_GROWTH:
            raise ValueError(f"it makes texts up to {growth:.0f} times longer before it splits them")
        for pattern in _patterns(definition):
            _refuse_endless(pattern)
        encoder = Encoder.from_buffer(tokenizer.definition)
        added = encoder.num_special_tokens_to_add(False)
        if added > _MAX_ADDED:
            raise ValueError(f"it adds {added} tokens to each text")
        padding = encoder.padding or {}
        encoder.enable_truncation(max(tokenizer.longest, added))
        encoder.no_padding()
    return encoder, padding


def _patterns(definition: Any) -> Iterator[str]:
    """Every regular expression of a tokenizer, wherever it stands."""
    left = [definition]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            if isinstance(part.get("Regex"), str):
                yield part["Regex"]
            left += part.values()
        elif isinstance(part, list):
            left += part


def _refuse_endless(pattern: str) -> None:
    for found in _ENDLESS.finditer(pattern):
        if not re.fullmatch(r"\\[^1-9]", found[0], re.DOTALL):  # any other escape, such as that of a backslash
            raise ValueError(f"the regular expression {pattern[:80]!r} refers to its own groups by {found[0]!r}")


def _steps(*roots: Any) -> list[dict[str, Any]]:
    """Normalizers and pre-tokenizers, those in sequences one by one."""
    steps = [step for step in roots if step is not None]
    for step in steps:
        steps += [*step.get("normalizers", ()), *step.get("pretokenizers", ())]
        if len(steps) > _MAX_STEPS:
            raise ValueError(f"it has more than {_MAX_STEPS} normalizers")
    return steps


def _growth(step: dict[str, Any]) -> float:
    """How many times longer a step makes a text at most; steps that do so once, such as NFKD, are not counted."""
    kind = step.get("type")
    if kind == "Replace":
        content, pattern = len(step["content"]), step["pattern"]
        # A regular expression may match between any two characters.
        return max(1.0, content / max(len(pattern["String"]), 0.5)) if "String" in pattern else 1.0 + content
    if kind == "Precompiled":
        blob = base64.b64decode(step["precompiled_charsmap"])
        size = int.from_bytes(blob[:4], "little")
        if size > len(blob) - 4 or size % 4:  # the library sets aside what the number says, and aborts where it cannot
            raise ValueError(f"its table of {len(blob)} bytes says that {size} of them are its first part")
        replacements = blob[4 + size :].split(b"\0")
        return 1.0 if max(map(len, replacements)) <= _LONGEST_REPLACEMENT else math.inf
    if kind == "Prepend":
        return 1.0 + len(step["prepend"]) / _LONGEST_REPLACEMENT
    return 2.0 if kind == "ByteLevel" else 1.0


def _padding(encoder: Any) -> int:
    """The number of the padding token; 0 where the tokenizer has none."""
    found = (encoder.token_to_id(token) for token in ("[PAD]", "<pad>"))
    return next((number for number in found if number is not None), 0)


def _padded(values: list[list[int]], width: int, fill: int) -> Array:
    table = np.full((len(values), width), fill, dtype=np.int64)
    for row, value in enumerate(values):
        table[row, : len(value)] = value
    return table
