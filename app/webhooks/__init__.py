"""Webhooks: who is told of events, the outbox, and the sender."""
