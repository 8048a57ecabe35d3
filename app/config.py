"""Settings of a deployment, read from the environment (prefix ``MODELPRESS_``) or an ``.env`` file."""

from functools import lru_cache
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024**2
GIB = 1024**3


class Settings(BaseSettings):
    """Every setting has a default that is right for the embedded service; docs/operations.md lists them."""

    model_config = SettingsConfigDict(env_prefix="MODELPRESS_", env_file=".env", extra="ignore", frozen=True)

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

    auth_enabled: bool = Field(True, description="Whether API keys are required.")
    max_upload_bytes: int = Field(64 * GIB, description="Largest accepted upload (413 above).")
    max_body_bytes: int = Field(4 * MIB, description="Largest accepted JSON body (413 above).")
    min_free_disk_bytes: int = Field(1 * GIB, description="Free disk that an upload must leave (507 below).")
    idempotency_ttl_s: int = Field(86_400, description="How long a response is kept for its Idempotency-Key.")
    forwarded_allow_ips: str = Field("127.0.0.1", description="Proxies whose X-Forwarded-* headers are believed.")
    root_path: str = Field("", description="Path prefix that a proxy strips.")
    sse_keepalive_s: float = Field(15.0, description="Seconds between comments on an idle event stream.")

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
    require_sandbox: bool = Field(False, description="Refuse to run jobs where a wall of the sandbox cannot stand.")


@lru_cache
def get_settings() -> Settings:
    """Settings of this process, read once."""
    return Settings()
