"""Webhooks and their log as the API takes and shows them."""

import json
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.tables import Webhook, WebhookDelivery
from app.web.fields import Name, Text
from app.webhooks.addresses import LONGEST_URL

Event = Literal["job.succeeded", "job.failed", "job.canceled"]
TEST_EVENT = "webhook.test"


def _each_once(events: list[Event]) -> list[Event]:
    return list(dict.fromkeys(events))


Events = Annotated[
    list[Event], AfterValidator(_each_once), Field(min_length=1, max_length=20, description="What it is told of.")
]
Url = Annotated[
    Text, Field(max_length=LONGEST_URL, description="https, without user name and password, of a public address.")
]


class NewWebhook(BaseModel):
    """A webhook to make."""

    model_config = ConfigDict(extra="forbid")

    url: Url
    events: Events
    name: Name | None = None


class WebhookChange(BaseModel):
    """What to change; what is absent stays."""

    model_config = ConfigDict(extra="forbid")

    url: Url | None = None
    events: Events | None = None
    name: Name | None = None
    enabled: bool | None = Field(None, description="Switched off, it is told of nothing.")


class WebhookView(BaseModel):
    """A webhook, without its secret."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str | None
    url: str
    events: list[Event]
    enabled: bool
    disabled_reason: str | None = Field(description="Why the service itself switched it off.")
    previous_secret_until: datetime | None = Field(
        description="Until when the secret before the last rotation signs too."
    )
    created_at: datetime

    @classmethod
    def of(cls, webhook: Webhook) -> "WebhookView":
        """The view of a row."""
        return cls.model_validate(webhook)


class MadeWebhook(WebhookView):
    """A webhook whose secret was just made: the only time that it is shown."""

    secret: str = Field(description="`whsec_` and base 64, as libraries of Standard Webhooks take it.")

    @classmethod
    def with_secret(cls, webhook: Webhook, secret: str) -> "MadeWebhook":
        """The view of a row and its new secret."""
        return cls.model_validate({**vars(webhook), "secret": secret})


class DeliveryError(BaseModel):
    """Why an attempt failed."""

    code: str
    detail: str


class DeliveryView(BaseModel):
    """One event on its way to a webhook. Status, error and duration are those of the latest attempt."""

    model_config = ConfigDict(from_attributes=True)

    id: str = Field(description="Also the header `webhook-id`, the same for every attempt.")
    webhook_id: str
    event: str
    payload: dict[str, Any] = Field(description="What is sent.")
    state: Literal["pending", "sending", "succeeded", "failed"]
    attempts: int
    next_attempt_at: datetime | None = Field(description="Null once it is over.")
    attempted_at: datetime | None
    response_status: int | None
    error: DeliveryError | None
    duration_ms: int | None
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, row: WebhookDelivery) -> "DeliveryView":
        """The view of a row."""
        return cls.model_validate({**vars(row), "payload": json.loads(row.body)})
