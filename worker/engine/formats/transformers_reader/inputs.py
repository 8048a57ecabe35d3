"""What a model of transformers is exported with: one example of each input, and which dimensions are symbolic."""

import inspect
import json
import math
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.export import Dim

from worker.engine.formats.archive import Archive
from worker.engine.formats.transformers_reader.architectures import ARCHITECTURES

#: Longest side of an image, and most numbers in one.
_SIDE, _PIXELS = 4096, 1 << 24
BATCH: Final = "batch"
SEQUENCE: Final = "sequence"
_PROCESSOR: Final = "preprocessor_config.json"
_IMAGE: Final = 224
_WORDS: Final = ("input_ids", "attention_mask", "token_type_ids")
_SAMPLE_WORDS: Final = 8
_OFFSET: Final = ("camembert", "mpnet", "roberta", "xlm-roberta")


def example_inputs(
    archive: Archive, config: Any, model: nn.Module
) -> tuple[dict[str, Tensor], dict[str, dict[int, Any]]]:
    """What to export with, and which of its dimensions are symbolic."""
    if ARCHITECTURES[config.model_type] == "image":
        channels, size = int(getattr(config, "num_channels", 3)), _image_size(archive, config)
        if channels * math.prod(size) > _PIXELS:
            raise ValueError(f"images of {channels} channels of {size[0]} x {size[1]}")
        example = torch.zeros(2, channels, *size)
        return {"pixel_values": example}, {"pixel_values": {0: Dim(BATCH)}}
    taken = inspect.signature(model.forward).parameters
    names = [name for name in _WORDS if name in taken]
    if getattr(config, "type_vocab_size", 0) < 2:
        names = [name for name in names if name != "token_type_ids"]
    example = torch.ones(2, _SAMPLE_WORDS, dtype=torch.int64)
    shape = {0: Dim(BATCH), 1: Dim(SEQUENCE, max=longest(config))}
    return (
        {name: torch.zeros_like(example) if name == "token_type_ids" else example.clone() for name in names},
        dict.fromkeys(names, shape),
    )


def longest(config: Any) -> int:
    """Most words of a text: RoBERTa's positions start behind the padding word."""
    offset = (config.pad_token_id or 0) + 1 if config.model_type in _OFFSET else 0
    return max(int(config.max_position_embeddings) - offset, _SAMPLE_WORDS)


def _image_size(archive: Archive, config: Any) -> tuple[int, int]:
    """Height and width: of the model, else of what its images are prepared to."""
    size = getattr(config, "image_size", None)
    if size is None and _PROCESSOR in archive.entries:
        try:
            processor = json.loads(archive.text(_PROCESSOR))
        except (ValueError, RecursionError):
            processor = {}
        processor = processor if isinstance(processor, dict) else {}
        size = processor.get("crop_size") or processor.get("size")
    if isinstance(size, dict):
        size = [size.get("height", size.get("shortest_edge")), size.get("width", size.get("shortest_edge"))]
    sizes = list(size) if isinstance(size, (list, tuple)) else [size, size]
    height, width = (size if isinstance(size, int) and 0 < size <= _SIDE else _IMAGE for size in (*sizes, 0, 0)[:2])
    return height, width
