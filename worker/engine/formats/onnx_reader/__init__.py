"""ONNX files -> networks: one table, operator -> function."""

from worker.engine.formats.onnx_reader.file import OnnxSource
from worker.engine.formats.onnx_reader.reader import read_onnx

__all__ = ["OnnxSource", "read_onnx"]
