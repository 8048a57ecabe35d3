"""Workspaces and keys as the API takes and shows them."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from app.config import RoleName
from app.tables import Key, Workspace
from app.web.fields import Name, Text

Role = RoleName
_DAY_S = 86_400


class NewWorkspace(BaseModel):
    """A workspace to make."""

    model_config = ConfigDict(extra="forbid")

    name: Name = Field(description="Unique in this deployment.")


_Limit = Annotated[int | None, Field(ge=0, description="0: no limit; null: the deployment's.")]
_Count = Annotated[_Limit, Field(lt=2**31)]


class WorkspaceQuotas(BaseModel):
    """Limits of one workspace in place of the deployment's."""

    model_config = ConfigDict(extra="forbid")

    stored_bytes: Annotated[_Limit, Field(lt=2**63)] = None
    jobs: _Count = None
    uploads: _Count = None


class WorkspaceChange(BaseModel):
    """What to change about a workspace; what is absent stays."""

    model_config = ConfigDict(extra="forbid")

    quotas: WorkspaceQuotas = Field(description="Limits to change.")

    def columns(self) -> dict[str, Any]:
        """Column -> new value."""
        return {f"quota_{name}": value for name, value in self.quotas.model_dump(exclude_unset=True).items()}


class WorkspaceView(BaseModel):
    """A workspace."""

    id: str
    name: str
    quotas: WorkspaceQuotas
    created_at: datetime

    @classmethod
    def of(cls, workspace: Workspace) -> "WorkspaceView":
        """The view of a row."""
        quotas = WorkspaceQuotas(
            stored_bytes=workspace.quota_stored_bytes, jobs=workspace.quota_jobs, uploads=workspace.quota_uploads
        )
        return cls(id=workspace.id, name=workspace.name, quotas=quotas, created_at=workspace.created_at)


class NewKeyRequest(BaseModel):
    """A key to make."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    role: Role = Field(description="Each may do what the ones before it may: reader, member, admin, operator.")
    workspace_id: Text | None = Field(None, description="Another workspace than one's own: for operators.")
    expires_at: AwareDatetime | None = Field(None, description="In the future; absent: never.")


class KeyRotation(BaseModel):
    """How a key is replaced."""

    model_config = ConfigDict(extra="forbid")

    overlap_s: int = Field(_DAY_S, ge=0, le=90 * _DAY_S, description="How long the old key still works; 0: no longer.")


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
    replaces: str | None = Field(description="The key that this one was made to replace.")
    created_at: datetime

    @classmethod
    def of(cls, key: Key) -> "KeyView":
        """The view of a row."""
        return cls.model_validate(key)


class MadeKey(KeyView):
    """A key that was just made: the only time that it is shown."""

    key: str
