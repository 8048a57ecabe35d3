"""The job's own process and its supervisor."""
