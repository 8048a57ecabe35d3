"""Runtimes: how to export to each and how to run it."""
