"""Workspaces and keys as the API takes and shows them."""

from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from app.tables import Key, Workspace
from app.web.fields import Name, Text

Role = Literal["reader", "member", "admin", "operator"]


class NewWorkspace(BaseModel):
    """A workspace to make."""

    model_config = ConfigDict(extra="forbid")

    name: Name = Field(description="Unique in this deployment.")


class WorkspaceView(BaseModel):
    """A workspace."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str
    created_at: datetime

    @classmethod
    def of(cls, workspace: Workspace) -> "WorkspaceView":
        """The view of a row."""
        return cls.model_validate(workspace)


class NewKeyRequest(BaseModel):
    """A key to make."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    role: Role = Field(description="Each may do what the ones before it may: reader, member, admin, operator.")
    workspace_id: Text | None = Field(None, description="Another workspace than one's own: for operators.")
    expires_at: AwareDatetime | None = Field(None, description="In the future; absent: never.")


class KeyView(BaseModel):
    """A key, without its secret."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    workspace_id: str
    name: str
    role: Role
    prefix: str = Field(description="How the key begins, after `mpk_`.")
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime

    @classmethod
    def of(cls, key: Key) -> "KeyView":
        """The view of a row."""
        return cls.model_validate(key)


class MadeKey(KeyView):
    """A key that was just made: the only time that it is shown."""

    key: str
