"""Every setting, read from the environment (``EMX_…``) in this one place."""

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from emx_shared.demo_model import DEMO_MODEL

LogLevel = Literal["debug", "info", "warning", "error"]


class Settings(BaseSettings):
    """Settings of all processes. Durations are in seconds, sizes in bytes, unless the name says otherwise."""

    model_config = SettingsConfigDict(env_prefix="EMX_", env_ignore_empty=True, extra="ignore")

    store: str = Field("file:data/store", description="file:DIR, or s3+http(s)://HOST[:PORT]/BUCKET")
    s3_access_key: str = ""
    s3_secret_key: str = ""
    s3_region: str = "us-east-1"
    s3_public: str | None = Field(
        None, description="http(s)://HOST[:PORT] at which clients reach the S3 server, to upload straight to it"
    )
    redis: str = "redis://127.0.0.1:6379/0"

    log_level: LogLevel = Field("warning", description="Least severity that gateway, courier and worker log")

    host: str = "127.0.0.1"
    port: int = 8000
    url: str | None = Field(None, description="Server that the client and the command `emx` talk to")
    api_key: str | None = Field(None, description="emx_…, shown to that server")
    allow_keyless_bind: bool = Field(
        False,
        description="Bind beyond loopback without API keys; for a container whose port is published "
        "on loopback only",
    )
    allowed_hosts: list[str] = Field(
        [], description="Names beside localhost by which a gateway without API keys may be called, as a JSON list"
    )
    metrics_port: int = Field(0, description="Port for /metrics of courier and worker; 0 for none")
    metrics_host: str = "127.0.0.1"

    model: str = Field(str(DEMO_MODEL), description="Checkpoint directory or hub id")
    adapter: str | None = Field(None, description="Directory of a PEFT adapter")
    device: str = "auto"
    quantisation: str = "auto"
    server: str | None = Field(
        None,
        description="An OpenAI-compatible server that runs the model, such as http://127.0.0.1:8001/v1; EMX_MODEL "
        "is then its name there, and EMX_ADAPTER a directory whose emx.json says how it is asked",
    )
    server_key: str | None = Field(None, description="Bearer token for that server")
    server_grammar: Literal["structured_outputs", "none"] = Field(
        "structured_outputs", description="How the report grammar is sent there: as vLLM takes it, or not at all"
    )
    slots: int = Field(32, ge=1, le=256, description="Studies that one worker holds at a time")

    submit_limit: str = Field("200/second", description="Submissions of a tenant, in the words of `limits`")
    read_limit: str = Field("1000/second", description="Other requests of a tenant")
    daily_quota: int | None = Field(
        None, ge=1, description="Studies that a tenant may submit in 24 hours; then 429"
    )
    max_queued_per_tenant: int = Field(20_000, description="Jobs of a tenant that wait; then 429")
    max_queued: int = Field(100_000, description="Jobs that wait in a queue; then 503")
    audit_log: Path | None = Field(None, description="File for the audit log, in JSON lines")
    cors_origins: list[str] = Field([], description="Origins whose pages may call the API, as a JSON list")
    upload_ttl: float = Field(24 * 3600, description="An upload that no job was made of is deleted then")

    max_upload_bytes: int = 64 * 2**20
    max_pixels: int = 50_000_000
    max_open_per_gateway: int = Field(10_000, description="Jobs accepted while Redis is away, then 503")
    explain_timeout: float = 120.0
    job_ttl: float = Field(24 * 3600, description="A job that hasn't ended after this long expires")

    webhook_secret: str | None = Field(None, description="whsec_… (Standard Webhooks)")
    webhook_allow_private: bool = Field(False, description="Allow http and private addresses as webhook targets")
    webhook_allow: list[str] = Field(
        [], description='Networks that aren\'t public and may be sent to, as a JSON list: ["10.2.0.0/16"]'
    )
    webhook_timeout: float = Field(10.0, description="For one try in all, from the look-up to the status")
    webhook_give_up: float = 24 * 3600

    lease: float = 15.0
    hang: float = Field(300.0, description="A worker whose engine makes no step for this long stops its leases")
    reconcile_every: float = 3.0
    abandon_after: float = 600.0
    overtaken_after: float = 60.0
    batch_window: int = Field(500, description="Items of one batch that are open at a time")
    max_batch_files: int = 500


@cache
def settings() -> Settings:
    """The settings of this process."""
    return Settings()
