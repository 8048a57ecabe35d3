"""The audit log as it is read; `app.accounts.audit` writes it."""
