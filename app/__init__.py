"""The web process: REST API and, later, pages. Never imports torch."""
