"""Settings of the gateway process: read once at start, from arguments or the environment, frozen after.

Every field can be set as ROOST_<NAME>, those of a theme as ROOST_<THEME>_<NAME>; an error names the variable.
"""

import ipaddress
from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.tenants import KEY_PREFIX

_MIB = 1024**2


class LimitSettings(BaseSettings):
    """What a client may send."""

    model_config = SettingsConfigDict(env_prefix="ROOST_LIMIT_", frozen=True, env_ignore_empty=True)

    upload_bytes: int = Field(2048 * _MIB, gt=0)
    """Largest model file: protobuf itself cannot hold more than 2 GiB."""
    request_bytes: int = Field(64 * _MIB, gt=0)
    """Largest body of a prediction; it is held in memory whole."""
    body_idle_s: float = Field(30.0, gt=0)
    """Seconds without a byte after which a body counts as given up."""
    head_s: float = Field(10.0, gt=0)
    """Seconds within which a request's head must be complete, and within which a new connection must begin one."""


class LocalSettings(BaseSettings):
    """The local engine."""

    model_config = SettingsConfigDict(env_prefix="ROOST_LOCAL_", frozen=True, env_ignore_empty=True)

    spares: int = Field(4, ge=0, le=64)
    """Processes kept forked ahead for waking models; each holds about 4 MiB."""
    queue_depth: int = Field(10_000, ge=1)
    """Requests that may wait for one model, as in Knative's activator."""
    start_timeout_s: float = Field(120.0, gt=0)
    """How long a model may take to load."""
    drain_s: float = Field(30.0, ge=0)
    """How long requests in flight may take when the server or a model is stopped."""
    memory_share: float = Field(0.8, gt=0, le=1)
    """Share of the memory free at start that replicas may hold."""
    memory_bytes: int | None = Field(None, gt=0)
    """Memory that replicas may hold; overrides the share."""
    replicas_per_core: int = Field(64, ge=1)
    """Most replicas per processor core: beyond that, switching between them costs more than it brings."""
    replica_memory_factor: float = Field(4.0, ge=1)
    """A replica may hold this many times what it is reckoned at (24 MiB and its model as measured on zeros), …"""
    replica_memory_slack_bytes: int = Field(1024 * _MIB, ge=0)
    """… and this much more; together never more than all replicas may hold."""
    answer_bytes: int = Field(256 * _MIB, gt=0, lt=1 << 32)
    """Largest body of an answer; it is held in memory whole."""


class MeteringSettings(BaseSettings):
    """The journal of usage events."""

    model_config = SettingsConfigDict(env_prefix="ROOST_JOURNAL_", frozen=True, env_ignore_empty=True)

    sync_interval_s: float = Field(0.05, ge=0)
    """Pause between two fdatasync, which a power cut may cost; 0 = sync before every answer. Nothing is lost to a
    killed process either way."""
    ship_interval_s: float = Field(1.0, gt=0)
    """How often the journal is moved to the ledger."""


class Settings(BaseSettings):
    """The server."""

    model_config = SettingsConfigDict(env_prefix="ROOST_", frozen=True, env_ignore_empty=True)

    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback needs an operator key."""
    port: int = Field(8000, ge=0, le=65535)
    """0 = a free one, told in the log and in `<data>/server.json`."""
    data: Path = Path("roost-data")
    """Folder for everything kept; one process at a time."""
    database_url: str | None = None
    """SQLAlchemy URL; None = SQLite in the data folder."""
    operator_key: SecretStr | None = None
    """The operator's key; None = made on first start and kept in `<data>/operator.key` (loopback only)."""
    public_url: str | None = None
    """Base of the URLs told to tenants; None = the address listened on."""
    prices: Path | None = None
    """The operator's own price book (TOML); None = the one that Roost comes with."""
    grace_s: float = Field(30.0, ge=0)
    """How long open requests may take at shutdown."""
    limits: LimitSettings = Field(default_factory=LimitSettings)
    local: LocalSettings = Field(default_factory=LocalSettings)
    metering: MeteringSettings = Field(default_factory=MeteringSettings)

    @field_validator("operator_key")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 24:
            raise ValueError("the operator key must be at least 24 characters")
        return value

    @property
    def loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def check_exposure(self) -> None:
        """Raises InvalidRequest for an address that others reach while no operator key is set."""
        if not self.loopback and self.operator_key is None:
            raise InvalidRequest(
                f"refusing to listen on {self.host} without an operator key: set ROOST_OPERATOR_KEY to a secret of "
                f"at least 24 characters (for example {KEY_PREFIX}… from `openssl rand -hex 32`), or listen on 127.0.0.1",
                code="operator_key_needed",
            )
