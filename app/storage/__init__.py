"""Content-addressed object store."""
