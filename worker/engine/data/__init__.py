"""Calibration, training and evaluation samples, read from untrusted files."""
