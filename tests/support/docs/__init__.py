"""Runs what the documentation shows; the rules are in CONTRIBUTING.md, "Documentation"."""
