"""Settings of the gateway process: read once at start, from arguments or the environment, frozen after.

Every field can be set as ROOST_<NAME>, those of a theme as ROOST_<THEME>_<NAME>; an error names the variable.
"""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from roost_gateway.engine_settings import KnativeSettings, LocalSettings, RaySettings
from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.tenants import KEY_PREFIX

_MIB = 1024**2


class LimitSettings(BaseSettings):
    """What a client may send."""

    model_config = SettingsConfigDict(env_prefix="ROOST_LIMIT_", frozen=True, env_ignore_empty=True)

    upload_bytes: int = Field(2048 * _MIB, gt=0)
    """Largest model file: protobuf itself cannot hold more than 2 GiB."""
    request_bytes: int = Field(64 * _MIB, gt=0)
    """Largest body of a prediction; the local engine holds it in memory whole, others pass it on as it comes."""
    body_idle_s: float = Field(30.0, gt=0)
    """Seconds without a byte after which a body counts as given up."""
    head_s: float = Field(10.0, gt=0)
    """Seconds within which a request's head must be complete, and within which a new connection must begin one."""


class MeteringSettings(BaseSettings):
    """The journal of usage events."""

    model_config = SettingsConfigDict(env_prefix="ROOST_JOURNAL_", frozen=True, env_ignore_empty=True)

    sync_interval_s: float = Field(0.05, ge=0)
    """Pause between two fdatasync, which a power cut may cost; 0 = sync before every answer. Nothing is lost to a
    killed process either way."""
    ship_interval_s: float = Field(1.0, gt=0)
    """How often the journal is moved to the ledger."""
    backlog_bytes: int = Field(1024 * _MIB, gt=0)
    """How much usage may wait for a database that is away; then predictions are refused before work is done for them."""


def _is_a_url(value: SecretStr | None) -> SecretStr | None:
    if value is not None:
        parts = urlsplit(value.get_secret_value())
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("the webhook must be a URL that begins with https:// or http://")
    return value


WebhookUrl = Annotated[SecretStr | None, AfterValidator(_is_a_url)]


class BudgetSettings(BaseSettings):
    """Tenants' budgets."""

    model_config = SettingsConfigDict(env_prefix="ROOST_BUDGET_", frozen=True, env_ignore_empty=True)

    interval_s: float = Field(10.0, gt=0)
    """Pause between two looks at what is spent. A hard cap can be overshot by what is spent meanwhile."""
    webhook: WebhookUrl = None
    """URL (http or https) that is told of alerts, as CloudEvents; None = nobody is. It may hold a secret."""


class RolloutSettings(BaseSettings):
    """Rollouts that judge themselves."""

    model_config = SettingsConfigDict(env_prefix="ROOST_ROLLOUT_", frozen=True, env_ignore_empty=True)

    interval_s: float = Field(1.0, gt=0)
    """Pause between two looks at the evidence."""
    webhook: WebhookUrl = None
    """URL (http or https) that is told of every decision, as CloudEvents; None = nobody is. It may hold a secret."""


class DriftSettings(BaseSettings):
    """Looking at what models are asked and answer. Needs the extra `drift`; without it nothing is looked at."""

    model_config = SettingsConfigDict(env_prefix="ROOST_DRIFT_", frozen=True, env_ignore_empty=True)

    rate: float = Field(1.0, ge=0, le=100)
    """Calls of a model that are looked at, a second, at most; for models whose owner has not said. 0 = none."""
    calls_per_s: float = Field(10.0, gt=0, le=1000)
    """The same for all models of a gateway together."""
    interval_s: float = Field(60.0, gt=0)
    """Pause between two comparisons, and between two looks at what other gateways decided."""


class IssuerSettings(BaseSettings):
    """Who issues the statements."""

    model_config = SettingsConfigDict(env_prefix="ROOST_ISSUER_", frozen=True, env_ignore_empty=True)

    name: str = Field("Roost", max_length=100)
    """On documents for people; FOCUS' provider, publisher and invoice issuer."""
    event_source: str = Field("/roost/billing", max_length=500)
    """A URI reference: `source` of the CloudEvents of statements."""
    region: str = Field("", max_length=100)
    """Where the models run, for FOCUS; empty where that has no name."""


class ArtifactSettings(BaseSettings):
    """Where uploaded models are kept."""

    model_config = SettingsConfigDict(env_prefix="ROOST_ARTIFACTS_", frozen=True, env_ignore_empty=True)

    url: str | None = Field(None, pattern=r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?")
    """`s3://bucket/prefix`; None = the data folder. Credentials come from the environment that AWS's tools read."""
    endpoint_url: str | None = None
    """Of an S3 server that is not Amazon's."""
    region: str | None = None
    redirect: bool = False
    """Send replicas to the bucket with a URL that is good for a minute, instead of passing the bytes through the gateway."""
    cache_bytes: int = Field(10 * 1024 * _MIB, ge=0)
    """How much of the bucket the data folder may keep for this machine's own replicas."""


class Settings(BaseSettings):
    """The server."""

    model_config = SettingsConfigDict(env_prefix="ROOST_", frozen=True, env_ignore_empty=True)

    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback needs an operator key."""
    port: int = Field(8000, ge=0, le=65535)
    """0 = a free one, told in the log and in `<data>/server.json`."""
    engine: Literal["local", "knative", "ray"] = "local"
    """What runs models: processes of this machine, a cluster's Knative Serving, or Ray Serve."""
    internal_host: str = "0.0.0.0"  # noqa: S104 - replicas in the cluster fetch their models here; each needs its secret
    """Address for what only replicas ask for; used where the engine is not `local`."""
    internal_port: int = Field(8001, ge=0, le=65535)
    service_secret_key: SecretStr | None = None
    """At least 32 characters, the same for every gateway: the secrets between gateways and replicas are made of it."""
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
    month_interval_s: float = Field(60.0, gt=0)
    """Pause between two looks at the running month's money for the metrics page; longer where a look takes more than six seconds."""
    access_log: float = Field(0.0, ge=0, le=1)
    """Share of the predictions that get a line in the log; 0 = none does, 1 = each."""
    grace_s: float = Field(30.0, ge=0)
    """How long open requests may take at shutdown."""
    limits: LimitSettings = Field(default_factory=LimitSettings)
    local: LocalSettings = Field(default_factory=LocalSettings)
    knative: KnativeSettings = Field(default_factory=KnativeSettings)
    ray: RaySettings = Field(default_factory=RaySettings)
    artifacts: ArtifactSettings = Field(default_factory=ArtifactSettings)
    metering: MeteringSettings = Field(default_factory=MeteringSettings)
    budgets: BudgetSettings = Field(default_factory=BudgetSettings)
    drift: DriftSettings = Field(default_factory=DriftSettings)
    rollouts: RolloutSettings = Field(default_factory=RolloutSettings)
    issuer: IssuerSettings = Field(default_factory=IssuerSettings)

    @field_validator("operator_key")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 24:
            raise ValueError("the operator key must be at least 24 characters")
        return value

    @field_validator("service_secret_key")
    @classmethod
    def _enough_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 32:
            raise ValueError("the service secret key must be at least 32 characters")
        return value

    @model_validator(mode="after")
    def _key_for_a_cluster(self) -> Self:
        if self.engine != "local" and self.service_secret_key is None and not self.own_ray:
            raise ValueError(
                f"engine {self.engine} needs ROOST_SERVICE_SECRET_KEY (for example `openssl rand -hex 32`)"
            )
        return self

    @property
    def own_ray(self) -> bool:
        """Whether a Ray is started on this machine, which ends with the gateway and is nobody else's."""
        return self.engine == "ray" and not self.ray.address

    @property
    def internal_address(self) -> str:
        """`internal_host`, unless nobody said it and only this machine asks."""
        return "127.0.0.1" if self.own_ray and "internal_host" not in self.model_fields_set else self.internal_host

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
