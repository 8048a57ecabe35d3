"""Folders of Hugging Face's transformers -> networks: ``config.json`` says what, safetensors hold the weights.

The code is always that of the installed transformers: what a folder brings along (``auto_map``, Python files,
pickled weights) is left out.
"""

from worker.engine.formats.transformers_reader.architectures import ARCHITECTURES, HEADS
from worker.engine.formats.transformers_reader.reader import read_transformers

__all__ = ["ARCHITECTURES", "HEADS", "read_transformers"]
