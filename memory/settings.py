"""The only place that reads the environment: every setting of the product, once, frozen."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from platformdirs import user_data_path
from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

_ADDRESS = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?")


class Settings(BaseSettings):
    """Settings by environment variable or `.env` in the working folder; names as in the README's table."""

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    rememberos_data: Path = Field(default_factory=lambda: user_data_path("rememberos"))
    api_host: str = "127.0.0.1"
    api_port: int = Field(default=8000, ge=0, le=65535)

    rememberos_url: str | None = None
    rememberos_key: SecretStr | None = None

    database_url: SecretStr | None = None
    database_owner_url: SecretStr | None = None

    temporal_address: str | None = None
    temporal_namespace: str = "default"
    temporal_ui_port: int = Field(default=8233, ge=0, le=65535)

    public_base_url: str | None = None
    encryption_key: SecretStr | None = None

    redis_url: SecretStr | None = None
    rate_limit_per_minute: int = Field(default=600, ge=0, le=10_000_000)
    public_rate_limit_per_minute: int = Field(default=30, ge=0, le=10_000_000)

    s3_endpoint_url: str | None = None
    s3_bucket: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$")
    s3_region: str = "auto"
    s3_addressing: Literal["path", "virtual"] = "path"
    s3_access_key: SecretStr | None = None
    s3_secret_key: SecretStr | None = None

    embedding_provider: Literal["local", "openai"] = "local"
    embedding_base_url: str | None = None
    embedding_model: str | None = None
    embedding_api_key: SecretStr | None = None
    embedding_compute_type: Literal["int8", "float32"] = "int8"

    extraction_base_url: str | None = None
    extraction_model: str | None = None
    extraction_api_key: SecretStr | None = None
    caption_model: str | None = None

    transcription_model: str | None = None
    transcription_base_url: str | None = None
    transcription_api_key: SecretStr | None = None
    transcription_max_minutes: int = Field(default=240, ge=1, le=24 * 60)

    ocr_engine: Literal["auto", "tesseract", "rapidocr", "off"] = "auto"

    admin_emails: Annotated[frozenset[str], NoDecode] = frozenset()
    bootstrap_email: str | None = None
    bootstrap_key: SecretStr | None = None

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] | None = None

    @field_validator("admin_emails", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return frozenset(part.strip().lower() for part in value.split(",") if part.strip())
        return value

    @field_validator("s3_endpoint_url")
    @classmethod
    def _an_address(cls, value: str | None) -> str | None:
        # The library of the store does not refuse what is none: it ends the process.
        if value is not None and not (_ADDRESS.fullmatch(value) and _is_well_formed(value)):
            raise ValueError("not an address such as https://s3.example.org or http://127.0.0.1:9000")
        return value

    @model_validator(mode="after")
    def _keys_of_the_bucket(self) -> Self:
        if self.s3_bucket is not None and (self.s3_access_key is None or self.s3_secret_key is None):
            raise ValueError("S3_BUCKET is set, so S3_ACCESS_KEY and S3_SECRET_KEY must be set too")
        return self

    @property
    def api_url(self) -> str:
        """Address under which clients reach the API, without a trailing slash."""
        return (self.public_base_url or f"http://{self.api_host}:{self.api_port}").rstrip("/")


def _is_well_formed(url: str) -> bool:
    try:
        # Asked for, the port is checked.
        return urlsplit(url).port != 0
    except ValueError:
        return False
