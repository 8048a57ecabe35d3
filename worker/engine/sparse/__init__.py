"""Weights that are zero: which, in which patterns, and when."""
