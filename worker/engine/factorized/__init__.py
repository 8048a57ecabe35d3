"""Layers as several smaller ones: the mathematics of each factorization, and putting the parts into the graph."""
