"""The service as its operators see it: figures for Prometheus."""
