"""The command `modelpress`: a thin layer of options, progress and tables over the SDK."""
