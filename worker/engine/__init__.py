"""The compression engine: a pure library that sees app.recipes alone."""
