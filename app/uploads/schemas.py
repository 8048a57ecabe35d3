"""What is sent with an upload, in both its forms."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from app.web.fields import Metadata, Name, Text

State = Literal["checking", "ready", "rejected"]


def _from_text(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ValueError("must be a JSON object, as text") from error


class UploadFields(BaseModel):
    """Fields beside the file; nouns add theirs. In a form, `metadata` is JSON text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    metadata: Annotated[Metadata, BeforeValidator(_from_text)] = Field(default_factory=dict)


class Source(BaseModel):
    """Where the bytes are, in the JSON form: exactly one of the two."""

    model_config = ConfigDict(extra="ignore")

    upload_id: Annotated[Text, Field(description="A finished resumable upload.")] | None = None
    source: Annotated[Text, Field(description="`s3://...`, from a bucket that the deployment allows.")] | None = None

    @model_validator(mode="after")
    def _one(self) -> "Source":
        if (self.upload_id is None) == (self.source is None):
            raise ValueError("give exactly one of `upload_id` and `source`; or send multipart/form-data with `file`")
        return self


class Rejection(BaseModel):
    """Why a file cannot be used, and what would work."""

    code: str = Field(examples=["truncated"])
    detail: str


class Upload(BaseModel):
    """What models and datasets have in common."""

    id: str
    name: str
    size_bytes: int
    sha256: str = Field(description="Of the file, in hexadecimal.")
    state: State = Field(description="`checking` until a worker has read the file.")
    filename: str
    metadata: dict[str, Any]
    error: Rejection | None = Field(description="For `rejected`: what is wrong, and what would work.")


#: How a file comes that is not in the request: the field that names it, and what OpenAPI calls and says of it.
_SENT = (
    ("upload_id", "FromUpload", "A finished resumable upload: POST /v1/uploads."),
    ("source", "FromSource", "A place that the service copies it from, such as s3://bucket/key."),
)


def request_body(fields: type[UploadFields], example: Mapping[str, Any]) -> dict[str, Any]:
    """The OpenAPI description of a POST that takes both forms."""
    schema = fields.model_json_schema()
    properties: dict[str, Any] = schema["properties"]
    required: list[str] = schema["required"]
    metadata = {"type": "object", "description": "Free JSON of the uploader.", "default": {}}
    form = {**properties, "metadata": {"type": "string", "description": "A JSON object, as text.", "default": "{}"}}
    # Whole alternatives: generators of clients make nothing of what a `oneOf` adds to an object.
    sent = [
        {
            "title": title,
            "type": "object",
            "properties": {**properties, "metadata": metadata, name: {"type": "string", "description": about}},
            "required": [*required, name],
            "additionalProperties": False,
        }
        for name, title, about in _SENT
    ]
    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {**form, "file": {"type": "string", "format": "binary"}},
                        "required": [*required, "file"],
                        "additionalProperties": False,
                    }
                },
                "application/json": {
                    "schema": {"oneOf": sent},
                    "example": dict(example),
                },
            },
        }
    }
