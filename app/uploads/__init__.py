"""Streaming uploads into the store."""
