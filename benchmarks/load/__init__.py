"""The API under load: requests per second, open event streams, long lists, uploads at once (``make load``)."""
