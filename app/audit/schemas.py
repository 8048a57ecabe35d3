"""Audit events as the API shows them."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from app.tables import AuditEvent


class AuditEventView(BaseModel):
    """What somebody changed, or was refused."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    workspace_id: str | None = Field(description="Of who asked; null where that is not known.")
    actor: str | None = Field(description="A key's id, `oidc:` and a token's subject, or `command line`.")
    action: str = Field(description="Name of the operation.", examples=["create_job", "revoke_key", "authenticate"])
    object_id: str | None = Field(description="What it was done to, or what it made.")
    outcome: str = Field(description="`ok`, or the code of the error that refused it.")
    request_id: str | None = Field(description="`X-Request-Id` of the answer.")
    address: str | None = Field(description="The client's.")
    created_at: datetime

    @classmethod
    def of(cls, event: AuditEvent) -> "AuditEventView":
        """The view of a row."""
        return cls.model_validate(event)
