"""Keys, tenants and authentication on a real database."""

import logging
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from gateway_parts import IRIS, NOON, OPERATOR_KEY, Parts, gateway_parts
from roost_platform.database.tables import api_keys, metadata, tenants
from roost_platform.domain.errors import Conflict, InvalidRequest, NotFound, PermissionDenied, Unauthenticated
from roost_platform.domain.tenants import Quota, Scope, make_secret

pytestmark = pytest.mark.usefixtures("each_database")

READ = frozenset({Scope.READ})


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with gateway_parts(tmp_path) as made:
        yield made


def bearer(secret: str) -> list[bytes]:
    return [f"Bearer {secret}".encode()]


async def test_key_acts_for_its_tenant_with_the_implied_scopes(parts: Parts):
    await parts.add_tenant()
    new = await parts.keys.create("acme", name="ci", scopes=frozenset({Scope.PREDICT}), expires_at=None)
    principal = parts.authenticator.identify(bearer(new.secret))
    assert (principal.operator, principal.tenant, principal.key_id) == (False, "acme", new.key.id)
    assert principal.scopes == {Scope.PREDICT, Scope.READ}
    with pytest.raises(PermissionDenied):
        principal.require(Scope.DEPLOY)
    with pytest.raises(PermissionDenied):
        principal.require_operator()


async def test_operator_key_is_the_operator(parts: Parts):
    principal = parts.authenticator.identify(bearer(OPERATOR_KEY))
    assert (principal.operator, principal.tenant, principal.scopes) == (True, "", set(Scope))


async def test_scheme_is_case_insensitive_and_takes_more_spaces(parts: Parts):
    secret = await parts.add_tenant()
    for header in (f"bearer {secret}", f"BEARER   {secret} "):
        assert parts.authenticator.identify([header.encode()]).tenant == "acme"


async def test_every_refusal_looks_the_same(parts: Parts):
    secret = await parts.add_tenant()
    expired = await parts.keys.create("acme", name="old", scopes=READ, expires_at=NOON + timedelta(seconds=1))
    revoked = await parts.keys.create("acme", name="gone", scopes=READ, expires_at=None)
    parts.authenticator.identify(bearer(revoked.secret))
    await parts.keys.revoke("acme", revoked.key.id)
    parts.clock.move(seconds=1)
    refused: dict[str, list[bytes]] = {
        "none": [],
        "two headers": bearer(secret) * 2,
        "garbage": [b"\xff\x00 garbage"],
        "empty": [b""],
        "no scheme": [secret.encode()],
        "wrong scheme": [f"Basic {secret}".encode()],
        "no key": [b"Bearer "],
        "unknown key": bearer(make_secret()),
        "near miss": bearer(secret[:-1] + ("0" if secret[-1] != "0" else "1")),
        "two keys in one": [f"Bearer {secret}, Bearer {secret}".encode()],
        "huge": [b"Bearer " + b"x" * 10_000],
        "expired": bearer(expired.secret),
        "revoked": bearer(revoked.secret),
    }
    messages = set()
    for headers in refused.values():
        with pytest.raises(Unauthenticated) as caught:
            parts.authenticator.identify(headers)
        messages.add((caught.value.message, caught.value.code, caught.value.field))
    assert len(messages) == 1


async def test_remembered_key_ends_when_it_expires(parts: Parts):
    await parts.add_tenant()
    new = await parts.keys.create("acme", name="short", scopes=READ, expires_at=NOON + timedelta(hours=1))
    parts.authenticator.identify(bearer(new.secret))
    parts.clock.move(minutes=59, seconds=59)
    parts.authenticator.identify(bearer(new.secret))
    parts.clock.move(seconds=1)
    with pytest.raises(Unauthenticated):
        parts.authenticator.identify(bearer(new.secret))


@pytest.mark.parametrize("query", ["api_key={}", "key={}", "token={}", "x=1&anything={}", "{}", "a=b&%6bey={}"])
async def test_key_in_the_url_is_refused_whatever_else_is_right(parts: Parts, query):
    secret = await parts.add_tenant()
    with pytest.raises(InvalidRequest) as caught:
        parts.authenticator.identify(bearer(secret), query.format(secret).encode())
    assert caught.value.code == "key_in_url"
    assert secret not in caught.value.message


async def test_other_queries_pass(parts: Parts):
    secret = await parts.add_tenant()
    for query in (b"", b"model=roost_iris", b"lines=5&revision=x", b"%%%&&&==", b"\xff"):
        assert parts.authenticator.identify(bearer(secret), query).tenant == "acme"


async def test_only_hashes_are_stored(parts: Parts, caplog):
    with caplog.at_level(logging.DEBUG):
        secret = await parts.add_tenant()
        new = await parts.keys.create("acme", name="ci", scopes=READ, expires_at=None)
        parts.authenticator.identify(bearer(secret))
        await parts.authenticator.flush_last_used()
    dump = await parts.database.read(
        lambda c: repr([c.execute(select(table)).all() for table in metadata.sorted_tables])
    )
    for each in (secret, new.secret):
        assert each not in dump
        assert each not in caplog.text
        assert each not in repr(new)


async def test_keys_and_tenants_are_there_after_a_restart(parts: Parts, tmp_path: Path):
    secret = await parts.add_tenant(models=7)
    new = await parts.keys.create("acme", name="gone", scopes=READ, expires_at=None)
    await parts.keys.revoke("acme", new.key.id)
    async with gateway_parts(tmp_path) as again:
        assert again.authenticator.identify(bearer(secret)).tenant == "acme"
        with pytest.raises(Unauthenticated):
            again.authenticator.identify(bearer(new.secret))
        assert again.tenants.get("acme") == parts.tenants.get("acme")
        assert again.tenants.get("acme").quota.models == 7
        assert [key.name for key in again.keys.list("acme")] == ["admin", "gone"]


async def test_last_use_is_shown_at_once_and_written_at_most_once_a_minute(parts: Parts):
    secret = await parts.add_tenant()

    async def stored():
        return await parts.database.read(lambda c: c.scalar(select(api_keys.c.last_used_at)))

    assert await parts.authenticator.flush_last_used() == 0
    parts.authenticator.identify(bearer(secret))
    assert (parts.keys.list("acme")[0].last_used_at, await stored()) == (NOON, None)
    assert (await parts.authenticator.flush_last_used(), await stored()) == (1, NOON)
    parts.clock.move(seconds=59)
    parts.authenticator.identify(bearer(secret))
    assert (await parts.authenticator.flush_last_used(), await stored()) == (0, NOON)
    parts.clock.move(seconds=1)
    assert (await parts.authenticator.flush_last_used(), await stored()) == (1, NOON + timedelta(seconds=59))
    parts.authenticator.identify(bearer(secret))
    assert await parts.authenticator.flush_last_used(final=True) == 1


async def test_keys_refuse_what_would_never_work(parts: Parts):
    await parts.add_tenant()
    with pytest.raises(InvalidRequest, match="future"):
        await parts.keys.create("acme", name="late", scopes=READ, expires_at=NOON)
    with pytest.raises(InvalidRequest, match="scope"):
        await parts.keys.create("acme", name="none", scopes=frozenset(), expires_at=None)
    with pytest.raises(NotFound):
        await parts.keys.create("absent", name="x", scopes=READ, expires_at=None)


async def test_key_of_another_tenant_cannot_be_revoked(parts: Parts):
    secret = await parts.add_tenant()
    await parts.add_tenant("rival")
    key_id = parts.authenticator.identify(bearer(secret)).key_id
    for tenant, wanted in (("rival", key_id), ("acme", "0123456789abcdef")):
        with pytest.raises(NotFound) as caught:
            await parts.keys.revoke(tenant, wanted)
        assert caught.value.message == "no such key"
    parts.authenticator.identify(bearer(secret))
    await parts.keys.revoke("acme", key_id)
    await parts.keys.revoke("acme", key_id)
    with pytest.raises(Unauthenticated):
        parts.authenticator.identify(bearer(secret))


async def test_tenant_names_are_labels_and_unique(parts: Parts):
    await parts.add_tenant()
    with pytest.raises(Conflict):
        await parts.add_tenant()
    for name in ("", "A", "-x", "x" * 64, "a/b", "../x", "ünique", "a\n"):
        with pytest.raises(InvalidRequest):
            await parts.add_tenant(name)
    assert [tenant.name for tenant in parts.directory.tenants()] == ["acme"]


async def test_quota_changes_hold_at_once_and_only_where_named(parts: Parts):
    await parts.add_tenant(models=5)
    changed = await parts.tenants.change("acme", {"requests_per_second": 12})
    assert asdict(changed.quota) == asdict(Quota(models=5, requests_per_second=12.0))
    assert parts.directory.tenant("acme") == changed
    for bad in ({"models": -1}, {"models": 1.5}, {"models": True}, {"models": None}, {"burst": 2**60}, {"x": 1}):
        with pytest.raises(InvalidRequest):
            await parts.tenants.change("acme", bad)
    with pytest.raises(NotFound):
        await parts.tenants.change("absent", {})


async def test_limits_of_a_cluster_are_stored_only_where_they_are_set(tmp_path: Path):
    """So that a gateway of the version before, which knows none of them, still reads every tenant that has none."""
    async with gateway_parts(tmp_path) as parts:
        await parts.add_tenant()
        await parts.add_tenant("big", gpus=2, memory_bytes=2**34)
        await parts.tenants.change("big", {"gpus": 0, "replicas": 9})
        stored = await parts.database.read(lambda c: dict(c.execute(select(tenants.c.name, tenants.c.quota)).all()))
    known = {"models", "storage_bytes", "concurrent_requests", "requests_per_second", "burst"}
    assert stored["acme"].keys() == known
    assert stored["big"].keys() == known | {"memory_bytes", "replicas"}
    async with gateway_parts(tmp_path) as again:
        assert again.tenants.get("acme").quota == Quota()
        assert again.tenants.get("big").quota == Quota(memory_bytes=2**34, replicas=9)


async def test_deleted_tenant_takes_its_keys_with_it(parts: Parts):
    secret = await parts.add_tenant()
    parts.authenticator.identify(bearer(secret))
    await parts.tenants.delete("acme")
    with pytest.raises(Unauthenticated):
        parts.authenticator.identify(bearer(secret))
    assert await parts.database.read(lambda c: c.execute(select(api_keys)).all()) == []
    with pytest.raises(NotFound):
        await parts.tenants.delete("acme")


async def test_tenant_with_models_stays_unless_they_are_deleted_too(parts: Parts):
    secret = await parts.add_tenant()
    await parts.serve()
    with pytest.raises(Conflict):
        await parts.tenants.delete("acme")

    async def fail() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await parts.tenants.delete("acme", delete_models=fail)
    assert parts.authenticator.identify(bearer(secret)).tenant == "acme", "a failed deletion is undone"
    await parts.tenants.delete("acme", delete_models=lambda: parts.deployments.delete(IRIS))
    assert parts.directory.tenants() == parts.directory.routes() == []


async def test_model_that_an_upload_adds_meanwhile_keeps_its_tenant(parts: Parts):
    await parts.add_tenant()

    async def upload_slips_in() -> None:
        await parts.add_version()

    with pytest.raises(Conflict, match="still has models"):
        await parts.tenants.delete("acme", delete_models=upload_slips_in)
    assert parts.tenants.get("acme").name == "acme"
