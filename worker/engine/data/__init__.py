"""Calibration, training and evaluation data."""
