"""Settings: their names in the environment, their bounds, and what is refused before anything starts (S2)."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from roost_gateway.engine_settings import LocalSettings
from roost_gateway.settings import LimitSettings, MeteringSettings, Settings
from roost_platform.domain.errors import InvalidRequest

KEY = "k" * 24
THEMES = {"": Settings, "LIMIT_": LimitSettings, "LOCAL_": LocalSettings, "JOURNAL_": MeteringSettings}


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    for name in [name for name in os.environ if name.startswith("ROOST_")]:
        monkeypatch.delenv(name)


def test_what_holds_when_nothing_is_said():
    settings = Settings()
    assert (settings.host, settings.port, settings.data, settings.loopback) == (
        "127.0.0.1", 8000, Path("roost-data"), True,
    )  # fmt: skip
    assert (settings.limits.request_bytes, settings.limits.upload_bytes) == (64 << 20, 2 << 30)
    assert (settings.limits.head_s, settings.limits.body_idle_s) == (10, 30)
    settings.check_exposure()


@pytest.mark.parametrize(
    ("variable", "value", "where", "wanted"),
    [
        ("ROOST_HOST", "::1", "host", "::1"),
        ("ROOST_PORT", "0", "port", 0),
        ("ROOST_DATA", "/srv/roost", "data", Path("/srv/roost")),
        ("ROOST_GRACE_S", "1.5", "grace_s", 1.5),
        ("ROOST_PUBLIC_URL", "https://roost.example", "public_url", "https://roost.example"),
        ("ROOST_LIMIT_REQUEST_BYTES", "5", "limits.request_bytes", 5),
        ("ROOST_LIMIT_HEAD_S", "3", "limits.head_s", 3),
        ("ROOST_LOCAL_SPARES", "0", "local.spares", 0),
        ("ROOST_LOCAL_MEMORY_BYTES", "1000", "local.memory_bytes", 1000),
        ("ROOST_JOURNAL_SYNC_INTERVAL_S", "0", "metering.sync_interval_s", 0),
        ("ROOST_JOURNAL_SHIP_INTERVAL_S", "0.5", "metering.ship_interval_s", 0.5),
        ("ROOST_ISSUER_NAME", "Acme Cloud", "issuer.name", "Acme Cloud"),
        ("ROOST_ISSUER_REGION", "fsn1", "issuer.region", "fsn1"),
        ("ROOST_LOCAL_SPARES", "", "local.spares", 4),
    ],
)
def test_each_can_come_from_the_environment(monkeypatch, variable, value, where, wanted):
    monkeypatch.setenv(variable, value)
    found = Settings()
    for part in where.split("."):
        found = getattr(found, part)
    assert found == wanted


def test_every_field_has_a_name_of_its_own_and_says_what_it_is():
    names = [prefix + field for prefix, theme in THEMES.items() for field in theme.model_fields]
    assert len(names) == len(set(names))
    assert set(Settings.model_fields) >= {"limits", "local", "metering"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ROOST_PORT", "65536"),
        ("ROOST_PORT", "-1"),
        ("ROOST_GRACE_S", "-1"),
        ("ROOST_LIMIT_REQUEST_BYTES", "0"),
        ("ROOST_LIMIT_BODY_IDLE_S", "0"),
        ("ROOST_LOCAL_SPARES", "65"),
        ("ROOST_LOCAL_MEMORY_SHARE", "1.1"),
        ("ROOST_JOURNAL_SHIP_INTERVAL_S", "0"),
        ("ROOST_OPERATOR_KEY", "short"),
    ],
)
def test_what_makes_no_sense_is_refused(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValidationError):
        Settings()


def test_settings_do_not_change_and_do_not_show_the_key():
    settings = Settings(operator_key=KEY)
    with pytest.raises(ValidationError):
        settings.port = 1
    assert KEY not in repr(settings)
    assert KEY not in str(settings.model_dump())


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_a_loopback_address_needs_no_key(host):
    Settings(host=host).check_exposure()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "roost.example", "", "::ffff:1.2.3.4"])
def test_s2_any_other_address_does(host):
    with pytest.raises(InvalidRequest) as refused:
        Settings(host=host).check_exposure()
    assert refused.value.code == "operator_key_needed"
    assert f"refusing to listen on {host} without" in refused.value.message
    assert "ROOST_OPERATOR_KEY" in refused.value.message
    Settings(host=host, operator_key=KEY).check_exposure()
