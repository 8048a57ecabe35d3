"""Text -> the inputs of a model: what its own tokenizer makes of each line, padded to the longest of them."""

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


def is_text(path: Path) -> bool:
    """Whether the file is text, by how it starts."""
    with path.open("rb") as file:
        head = file.read(16)
    return bool(head) and b"\0" not in head and not head.startswith(_BINARY)


def encode(path: Path, tokenizer: Tokenizer | None, role: str) -> Table:
    """The samples of a text dataset as columns of int64, shape (samples, tokens of the longest).

    Raises:
        InvalidDataset: not text that can be read, or a model without a tokenizer.
        InvalidModel: a tokenizer that cannot be read.
    """
    if tokenizer is None:
        raise InvalidDataset(
            codes.KIND_UNSUPPORTED,
            f"The {role} dataset is text, and the model came without a tokenizer. Upload the model as a folder of "
            "transformers with its tokenizer.json, or the dataset as tensors of token numbers.",
        )
    from tokenizers import Tokenizer as Encoder  # noqa: PLC0415  # only text needs it

    try:
        encoder = Encoder.from_buffer(tokenizer.definition)
        padding = encoder.padding or {}
        encoder.enable_truncation(tokenizer.longest)
        encoder.no_padding()
    except Exception as error:  # the library raises nothing narrower
        raise InvalidModel(
            codes.TOKENIZER_INVALID, f"The model's tokenizer.json cannot be read: {str(error)[:300]}"
        ) from error
    rows: dict[str, list[list[int]]] = {name: [] for name in INPUTS}
    waiting: list[str] = []
    for line in text.read(path):
        waiting.append(line)
        if len(waiting) == _AT_ONCE:
            _append(rows, encoder.encode_batch(waiting))
            waiting = []
    _append(rows, encoder.encode_batch(waiting))
    if not rows["input_ids"]:
        raise InvalidDataset(codes.TOO_FEW_SAMPLES, f"The {role} dataset holds no text.")
    width = max(map(len, rows["input_ids"]))
    fill = {"input_ids": padding.get("pad_id", _padding(encoder)), "token_type_ids": padding.get("pad_type_id", 0)}
    return {name: _padded(values, width, fill.get(name, 0)) for name, values in rows.items()}


def _append(rows: dict[str, list[list[int]]], encodings: list[Any]) -> None:
    for encoding in encodings:
        for name, attribute in INPUTS.items():
            rows[name].append(getattr(encoding, attribute))


def _padding(encoder: Any) -> int:
    """The number of the padding token; 0 where the tokenizer has none."""
    found = (encoder.token_to_id(token) for token in ("[PAD]", "<pad>"))
    return next((number for number in found if number is not None), 0)


def _padded(values: list[list[int]], width: int, fill: int) -> Array:
    table = np.full((len(values), width), fill, dtype=np.int64)
    for row, value in enumerate(values):
        table[row, : len(value)] = value
    return table
