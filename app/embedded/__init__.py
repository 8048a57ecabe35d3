"""Runs a whole deployment on one machine: PostgreSQL, Valkey, API and workers as supervised children."""
