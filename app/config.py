"""Settings of a deployment, read from the environment (prefix ``MODELPRESS_``), an ``.env`` file, or files of secrets.

A file of `SECRETS` named like the variable, in small letters (``/run/secrets/modelpress_key_pepper``), holds one value;
container platforms put secrets there. The environment wins over ``.env``, which wins over the files.
"""

from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, IPvAnyNetwork, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024**2
GIB = 1024**3
SECRETS = Path("/run/secrets")

RoleName = Literal["reader", "member", "admin", "operator"]


class Settings(BaseSettings):
    """Every setting has a default that is right for the embedded service; docs/operations.md lists them."""

    model_config = SettingsConfigDict(
        env_prefix="MODELPRESS_",
        env_file=".env",
        secrets_dir=SECRETS if SECRETS.is_dir() else None,
        extra="ignore",
        frozen=True,
    )

    database_url: str = Field(
        "postgresql+psycopg://modelpress@localhost/modelpress", description="Postgres, psycopg 3."
    )
    database_pool_size: int = Field(10, description="Connections that one process keeps open.")
    broker_url: str = Field("redis://localhost:6379/0", description="Redis or Valkey for Celery messages.")
    store_url: str = Field(
        "file:///var/lib/modelpress/store", description="Where bytes live: file:///DIR or s3://BUCKET/PREFIX."
    )
    work_dir: Path = Field(Path("/tmp/modelpress"), description="Private scratch folder of workers.")  # noqa: S108
    s3_allow_http: bool = Field(False, description="Whether the S3 endpoint (AWS_ENDPOINT_URL) may be plain HTTP.")
    signed_url_s: int = Field(900, description="How long a signed download URL of an S3 store works.")
    key_pepper: SecretStr = Field(SecretStr(""), description="Secret mixed into the hash of API keys; required.")
    signing_key: SecretStr = Field(
        SecretStr(""), description="PEM of the EC P-256 private key that signs artifacts; empty: no signatures."
    )

    auth_enabled: bool = Field(True, description="Whether API keys are required.")
    key_memory_s: float = Field(
        3.0, ge=0, le=5, description="How long an API process believes a key that it has proved; 0: it asks each time."
    )
    session_s: int = Field(
        43_200, gt=0, description="How long one stays signed in to the web pages; a revoked key ends it sooner."
    )
    rate_limit_per_s: float = Field(50.0, ge=0, description="Requests per second that one key may make; 0: no limit.")
    rate_limit_burst: int = Field(300, ge=1, description="Requests that one key may make at once.")
    auth_failures_per_min: int = Field(
        60, ge=0, description="Wrong keys and tokens per minute from one address (IPv6: its /64); 0: no limit."
    )
    quota_stored_bytes: int = Field(0, ge=0, description="Bytes that a workspace may keep; 0: no limit.")
    quota_jobs: int = Field(0, ge=0, description="Jobs of a workspace that may be queued or running; 0: no limit.")
    quota_uploads: int = Field(0, ge=0, description="Uploads of a workspace at the same time; 0: no limit.")
    audit_retention_days: int = Field(365, ge=0, description="How long audit events are kept; 0: for ever.")
    oidc_issuer: str = Field("", description="Issuer whose tokens are taken beside keys; empty: none.")
    oidc_audience: str = Field("", description="What must be among a token's audiences; required with an issuer.")
    oidc_workspace_claim: str = Field("modelpress_workspace", description="Claim that names the workspace.")
    oidc_role_claim: str = Field("modelpress_role", description="Claim with the role, or a list of roles.")
    oidc_roles: dict[str, RoleName] = Field(
        {}, description="JSON: value of the role claim -> role; empty: the values are roles."
    )
    oidc_leeway_s: int = Field(30, ge=0, description="How far the issuer's clock may be off.")
    max_upload_bytes: int = Field(64 * GIB, description="Largest accepted upload (413 above).")
    upload_ttl_s: int = Field(86_400, description="How long a resumable upload is kept after its last bytes.")
    upload_part_bytes: int = Field(16 * MIB, description="A resumable upload is stored in parts of so many bytes.")
    sources: list[str] = Field(
        [], description="Buckets that files may be taken from: s3://BUCKET or s3://BUCKET/PREFIX."
    )
    max_body_bytes: int = Field(4 * MIB, description="Largest accepted JSON body (413 above).")
    min_free_disk_bytes: int = Field(1 * GIB, description="Free disk that an upload must leave (507 below).")
    idempotency_ttl_s: int = Field(86_400, description="How long a response is kept for its Idempotency-Key.")
    forwarded_allow_ips: str = Field("127.0.0.1", description="Proxies whose X-Forwarded-* headers are believed.")
    root_path: str = Field("", description="Path prefix that a proxy strips.")
    sse_keepalive_s: float = Field(
        15.0, description="Seconds between comments on an event stream, and looks whether its key is still valid."
    )

    lease_s: float = Field(30.0, description="How long a worker owns a job without renewing.")
    heartbeat_s: float = Field(5.0, description="Seconds between renewals of a lease and of a worker's presence.")
    cancel_poll_s: float = Field(1.0, description="Seconds between looks at the cancel flag.")
    worker_ttl_s: float = Field(30.0, description="A worker not seen for so long is not live.")
    maintenance_s: float = Field(5.0, description="Seconds between runs of the maintenance loop.")
    stale_queued_s: float = Field(20.0, description="A claimable job older than this gets a new look message.")
    retry_backoff_s: float = Field(
        2.0, description="Pause before another attempt after an infrastructure fault; doubles."
    )

    job_memory_bytes: int = Field(0, description="Memory limit of a job's process; 0: 90 % of the machine's.")
    job_file_bytes: int = Field(
        64 * GIB, description="Most that a job may write: into one file, and into all together."
    )
    job_processes: int = Field(512, description="Threads and processes that a job may have.")
    job_threads: int = Field(0, description="CPU threads of a job; 0: all cores.")
    check_run_s: float = Field(600.0, description="Time limit of the check of an upload.")
    check_attempts: int = Field(
        3, ge=1, le=10, description="Attempts at the check of an upload; when faults have used them up, it is rejected."
    )
    require_sandbox: bool = Field(False, description="Refuse to run jobs where a wall of the sandbox cannot stand.")

    webhook_timeout_s: float = Field(15.0, gt=0, description="Time that the receiver of a webhook has to answer.")
    webhook_retry_s: tuple[float, ...] = Field(
        (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400),
        description="Pauses between attempts to deliver, as a JSON list; up to a tenth is added by chance.",
    )
    webhook_poll_s: float = Field(1.0, gt=0, description="Seconds between looks for deliveries that are due.")
    webhook_retention_s: float = Field(2_592_000.0, description="How long a finished delivery stays in the log.")
    webhook_allow_http: bool = Field(False, description="Whether webhooks may go to plain HTTP.")
    webhook_allowed_networks: tuple[IPvAnyNetwork, ...] = Field(
        (), description="Networks that webhooks may reach beside public addresses, as a JSON list of CIDRs."
    )

    log_format: Literal["text", "json"] = Field("text", description="`text` for people, `json` for machines.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    metrics_token: SecretStr = Field(
        SecretStr(""), description="Bearer token that `/metrics` asks for; without it only this machine is answered."
    )
    otlp_endpoint: str = Field("", description="OTLP over HTTP: where traces go (extra `otel`); empty: nowhere.")
    drain_s: float = Field(
        0.0, description="Seconds that an API process still serves after SIGTERM, with `/readyz` at 503."
    )


@lru_cache
def get_settings() -> Settings:
    """Settings of this process, read once."""
    return Settings()
