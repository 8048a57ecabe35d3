"""Compressed artifacts and their provenance."""
