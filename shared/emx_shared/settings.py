"""Every setting, read from the environment (``EMX_…``) in this one place."""

from functools import cache
from typing import Literal

from pydantic import Field, HttpUrl
from pydantic_settings import BaseSettings, SettingsConfigDict

from emx_shared.demo_files import DEMO_MODEL

LogLevel = Literal["debug", "info", "warning", "error"]


class Settings(BaseSettings):
    """Settings of all processes. Durations are in seconds, sizes in bytes, unless the name says otherwise."""

    model_config = SettingsConfigDict(env_prefix="EMX_", env_ignore_empty=True, extra="ignore")

    store: str = Field("file:data/store", description="Object store: file:DIR, or s3+http(s)://HOST[:PORT]/BUCKET")
    s3_access_key: str = Field("", description="Access key of the S3 server")
    s3_secret_key: str = Field("", description="Secret key of the S3 server")
    s3_region: str = Field("us-east-1", description="Region of the S3 server")
    s3_public: str | None = Field(
        None, description="http(s)://HOST[:PORT] at which clients reach the S3 server, to upload straight to it"
    )
    redis: str = Field("redis://127.0.0.1:6379/0", description="Redis: broker, leases and live updates")

    log_level: LogLevel = Field("warning", description="Least severity that gateway, courier and worker log")

    host: str = Field("127.0.0.1", description="Address on which the gateway listens")
    port: int = Field(8000, description="Port on which the gateway listens")
    public_url: HttpUrl | None = Field(
        None, description="https://HOST[/PATH] at which clients reach the gateway through a proxy, if any"
    )
    trusted_proxies: list[str] = Field(
        [], description="Addresses or networks whose X-Forwarded-For and -Proto are believed, as a JSON list"
    )
    keep_alive: int = Field(
        75, description="Seconds for which an idle connection stays open: longer than a proxy keeps its own"
    )
    url: str | None = Field(None, description="Server that the client and the command `emx` talk to")
    api_key: str | None = Field(None, description="API key, emx_…, that the client and `emx` show to that server")
    allow_keyless_bind: bool = Field(
        False,
        description="Listen beyond loopback without API keys; for a container whose port is published on loopback "
        "only",
    )
    allowed_hosts: list[str] = Field(
        [], description="Host names beside localhost at which a gateway without API keys answers, as a JSON list"
    )
    metrics_port: int = Field(0, description="Port for /metrics of courier and worker; 0 for none")
    metrics_host: str = Field("127.0.0.1", description="Address for /metrics of courier and worker")

    model: str = Field(
        str(DEMO_MODEL), description="Model: checkpoint directory or hub id. Default: the demo model"
    )
    adapter: str | None = Field(None, description="Directory of a PEFT adapter for the model")
    device: str = Field("auto", description="auto, cpu or cuda")
    quantisation: str = Field(
        "auto",
        description="auto, int4, nf4, bf16 or none (fp32); auto is int4 on the CPU, and on CUDA bf16 where twice "
        "that fits, else nf4",
    )
    server: str | None = Field(
        None,
        description="OpenAI-compatible server that runs the model, such as http://127.0.0.1:8001/v1; EMX_MODEL "
        "is then its name there, and EMX_ADAPTER a directory whose emx.json says how it is prompted",
    )
    server_key: str | None = Field(None, description="Bearer token for that server")
    server_grammar: Literal["structured_outputs", "none"] = Field(
        "structured_outputs", description="How the report grammar is sent there: as vLLM takes it, or not at all"
    )
    slots: int = Field(32, ge=1, le=256, description="Images that one worker reads at a time, beside stat images")

    submit_limit: str = Field("200/second", description="Submissions of a tenant, in the notation of `limits`")
    read_limit: str = Field("1000/second", description="Other requests of a tenant")
    daily_quota: int | None = Field(
        None, ge=1, description="Images that a tenant may submit in 24 hours; more are answered 429"
    )
    max_queued_per_tenant: int = Field(20_000, description="Jobs of a tenant that may wait; more are answered 429")
    max_queued: int = Field(100_000, description="Jobs that may wait in a queue; more are answered 503")
    audit_log: str | None = Field(
        None,
        description="File for the audit log, in JSON lines; - for standard output, none for no log. Default: "
        "where there are API keys, audit.jsonl beside a store in a folder, else standard output",
    )
    cors_origins: list[str] = Field([], description="Origins whose pages may call the API, as a JSON list")
    upload_ttl: float = Field(24 * 3600, description="Seconds after which an upload that no job uses is deleted")

    keep_input: bool = Field(
        True, description="Keep images after their jobs have ended; false deletes each with its job's end"
    )
    retention_inputs: float | None = Field(
        None, gt=0, description="Seconds after its submission at which an image is deleted. Default: never"
    )
    retention_reports: float | None = Field(
        None,
        gt=0,
        description="Seconds after its submission at which a job that has ended is erased, its report included. "
        "Default: never",
    )
    max_connections: int = Field(
        2000, description="Connections that a gateway holds at a time; more are answered 503"
    )
    receive_timeout: float = Field(
        30.0, description="Seconds in which a request's headers, and then each part of its body, must arrive"
    )
    max_bytes_in_hand: int = Field(
        768 * 2**20,
        description="Bytes of request bodies that a gateway receives at a time, of which a tenant may take half; "
        "more wait, and are then answered 429 or 503",
    )
    max_upload_bytes: int = Field(64 * 2**20, description="Largest image file, in bytes")
    max_pixels: int = Field(50_000_000, description="Largest image, in pixels")
    decode_timeout: float = Field(
        30.0, description="Seconds after which an image that is still being decoded is refused"
    )
    decode_memory: int = Field(2 * 2**30, description="Memory that decoding one image may take, in bytes")
    max_open_per_gateway: int = Field(
        10_000, description="Jobs that a gateway accepts while Redis is unavailable; more are answered 503"
    )
    explain_timeout: float = Field(120.0, description="Seconds after which POST /explain answers 504")
    job_ttl: float = Field(24 * 3600, description="Seconds after which a job that hasn't ended expires")

    webhook_secret: str | None = Field(
        None, description="whsec_… (Standard Webhooks) for tenants that have created no secret of their own"
    )
    webhook_allow_private: bool = Field(
        False, description="Allow http and private addresses as webhook targets, for development"
    )
    webhook_allow: list[str] = Field(
        [], description='Private networks that webhooks may be sent to, as a JSON list: ["10.2.0.0/16"]'
    )
    webhook_timeout: float = Field(
        10.0, description="Seconds for one try of a webhook in all, from looking up the host to the status"
    )
    webhook_give_up: float = Field(24 * 3600, description="Seconds after which a webhook is given up")

    lease: float = Field(
        15.0, description="Seconds after which a job of a worker that vanished is read by another"
    )
    hang: float = Field(
        300.0, description="Seconds without any progress of its engine after which a worker gives up its jobs"
    )
    reconcile_every: float = Field(3.0, description="Seconds between rounds of the reconciler")
    abandon_after: float = Field(
        600.0, description="Seconds after which a submission that never committed is removed"
    )
    batch_window: int = Field(500, description="Items of one batch that are open at a time")
    max_batch_files: int = Field(500, description="Most images in one form of POST /v1/batches")

    @property
    def path_prefix(self) -> str:
        """The path below which clients reach the gateway, such as /xray; empty at a host's root."""
        return (self.public_url.path or "").rstrip("/") if self.public_url else ""


@cache
def settings() -> Settings:
    """Return the settings of this process."""
    return Settings()
