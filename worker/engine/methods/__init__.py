"""Compression methods, one file per technique."""
