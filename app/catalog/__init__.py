"""What a job may ask: methods, targets, presets, as the API lists them."""
