"""The web pages: rendered here, on the services that the API's endpoints call; what is live asks the API itself.

Docs: docs/pages.md, docs/decisions/0017-pages.md.
"""
