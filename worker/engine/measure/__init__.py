"""Measuring artifacts in their runtime, and the gate."""
