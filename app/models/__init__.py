"""Uploaded machine-learning models."""
