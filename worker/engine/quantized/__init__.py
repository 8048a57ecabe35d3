"""Quantization schemes, calibrators and the quantized form."""
