"""Registries on one bucket: what one gateway stored another serves, sweeps remove what nobody needs and nothing else."""

import asyncio
import hashlib
import threading
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import orjson
import pytest

from databases import url_of
from registry_parts import IRIS, NOON, adding, body, open_database
from roost_platform.database.connection import Database
from roost_platform.domain.errors import NotFound, Unavailable
from roost_platform.domain.scaling import ScalingPolicy
from roost_platform.domain.services import Revision, RevisionKey, Service, ServiceKey, TrafficTarget
from roost_platform.domain.tenants import Quota
from roost_platform.engines.local.budget import Capacity
from roost_platform.engines.local.engine import LocalEngine, LocalSettings
from roost_platform.engines.port import UpstreamRequest
from roost_platform.registry.checking import Checker
from roost_platform.registry.registry import Registry
from s3_faults import Fault
from s3_parts import BUCKET, PATIENT

ONE, TWO = adding(1), adding(2)
OTHER = ServiceKey("other", "iris")


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@asynccontextmanager
async def gateway(s3, database: Database, name: str = "data", *, start: bool = True, limits=PATIENT, **options):
    """A registry with a data folder of its own."""
    store = s3.store(name, limits=limits)
    about = {"staging": s3.folder / name / "staging", "clock": lambda: NOON} | options
    registry = Registry(database=database, store=store, checker=Checker(), **about)
    if start:
        await registry.start()
    try:
        yield registry
    finally:
        await registry.stop()


@pytest.fixture
def database(s3):
    with open_database(s3.folder, "acme", "other") as opened:
        yield opened


async def register(registry, content, key=IRIS):
    return (await registry.register(key, body(content), limit_bytes=1_000_000, quota=Quota())).version


def held(s3) -> set[str]:
    return {key.rpartition("/")[2] for key in s3.objects()}


async def test_what_one_gateway_stored_another_fetches_and_bakes_for_itself(s3, database):
    async with gateway(s3, database) as one, gateway(s3, database, "other") as two:
        digest = (await register(one, ONE)).digest
        assert one.locate(digest).baked
        assert two.locate(digest) is None
        located = await two.fetch(digest)
        assert (located.baked, located.path.read_bytes()) == (False, ONE)
    async with gateway(s3, database, "other") as two:
        assert two.locate(digest).baked, "made beside the first load, and kept"


async def test_many_who_want_the_same_file_wait_for_one_fetch(s3, database):
    async with gateway(s3, database) as one, gateway(s3, database, "other") as two:
        digest = (await register(one, ONE)).digest
        before = s3.proxy.count("GET", "sha256/")
        located = await asyncio.gather(*(two.fetch(digest) for _ in range(20)))
        assert {one.path.read_bytes() for one in located} == {ONE}
        assert s3.proxy.count("GET", "sha256/") - before <= 1 + s3.proxy.count("GET", "list-type")


async def test_one_who_leaves_takes_the_file_from_nobody(s3, database):
    async with gateway(s3, database) as one, gateway(s3, database, "other") as two:
        digest = (await register(one, ONE)).digest
        s3.proxy.faults.append(Fault("GET", digest, answer=(503, "SlowDown"), times=3))
        leaving, staying = (asyncio.create_task(two.fetch(digest)) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        assert (await staying).path.read_bytes() == ONE


async def test_a_store_out_of_reach_refuses_uploads_and_leaves_nothing(s3, database):
    async with gateway(s3, database, limits=replace(PATIENT, patience_s=0.3)) as registry:
        s3.proxy.faults += [Fault(method, answer=(503, "SlowDown"), times=1000) for method in ("HEAD", "PUT")]
        with pytest.raises(Unavailable) as raised:
            await register(registry, ONE)
        assert raised.value.code == "artifact_store"
        with pytest.raises(NotFound):
            await registry.versions(IRIS)
    assert held(s3) == set()
    assert list((s3.folder / "data" / "staging").iterdir()) == []


async def test_a_start_does_not_need_the_store(s3, database):
    s3.proxy.faults.append(Fault("GET", answer=(503, "SlowDown"), times=1000))
    async with gateway(s3, database, limits=replace(PATIENT, patience_s=0.2)) as registry:
        await registry.sweep()


async def test_a_model_is_deleted_though_the_store_is_away_and_its_file_is_swept_later(s3, database):
    async with gateway(s3, database, limits=replace(PATIENT, patience_s=0.2)) as registry:
        digest = (await register(registry, ONE)).digest
        s3.proxy.faults.append(Fault("DELETE", answer=(503, "SlowDown"), times=1000))
        await registry.delete_model(IRIS)
        assert held(s3) == {digest}
        s3.proxy.faults.clear()
        await registry.sweep()
        assert held(s3) == set()


async def test_only_who_leads_sweeps_the_store_and_only_what_is_old(s3, database):
    stray = "e" * 64
    s3.client.put_object(Bucket=BUCKET, Key=f"{s3.prefix}sha256/ee/{stray}", Body=b"x")
    leads = [False]
    about = {"leads": lambda: leads[0]}
    async with gateway(s3, database, **about, orphan_age_s=3600) as young, gateway(s3, database, "old", **about) as old:
        used = (await register(young, ONE)).digest
        await old.sweep()
        assert held(s3) == {used, stray}
        leads[0] = True
        await young.sweep()
        assert held(s3) == {used, stray}
        await old.sweep()
        assert held(s3) == {used}


async def test_what_another_gateway_deleted_goes_from_this_machine_too(s3, database):
    async with gateway(s3, database) as one, gateway(s3, database, "other", leads=lambda: False) as two:
        digest = (await register(one, ONE)).digest
        keep = (await register(two, TWO)).digest
        await register(two, ONE, OTHER)
        assert two.locate(digest).baked
        await one.delete_model(OTHER)
        await one.delete_model(IRIS)
        assert held(s3) == set()
        await register(two, TWO)
        await two.sweep()
        assert two.locate(digest) is None or not two.locate(digest).baked
        assert two.locate(keep).baked


async def test_an_upload_elsewhere_of_bytes_that_go_never_loses_its_file(s3, each_database):
    """Two gateways on PostgreSQL; SQLite has one. The bytes' only model is deleted between another's put and its row."""
    with open_database(s3.folder, "acme", "other") as database:
        second = Database(url_of(s3.folder)) if database.shared else database
        async with gateway(s3, database) as one, gateway(s3, second, "second") as other:
            two = other if database.shared else one
            digest = (await register(one, ONE)).digest
            was_put, go_on = pausing_after_put(two)
            taking = asyncio.create_task(register(two, ONE, OTHER))
            await asyncio.to_thread(was_put.wait)
            deleting = asyncio.create_task(one.delete_model(IRIS))
            await asyncio.wait([deleting], timeout=1)  # it waits, or has gone wrong by then
            go_on.set()
            await asyncio.gather(taking, deleting)
            assert held(s3) == {digest}
            await one.delete_model(OTHER)
            assert held(s3) == set()
        if second is not database:
            second.close()


def pausing_after_put(registry: Registry) -> tuple[threading.Event, threading.Event]:
    """What is set once a file was put, and what is then waited for."""
    was_put, go_on = threading.Event(), threading.Event()
    put = registry._store.put

    def pausing(path, digest):
        put(path, digest)
        was_put.set()
        go_on.wait()

    registry._store.put = pausing
    return was_put, go_on


async def test_a_sleeping_model_wakes_on_a_machine_that_has_never_seen_it(s3, database):
    """The local engine on another machine: its replica opens what was fetched for it."""
    async with gateway(s3, database) as one, gateway(s3, database, "other") as two:
        version = await register(one, ONE)
        settings = LocalSettings(capacity=Capacity(8 * 1024**3, 8), spares=1)
        engine = LocalEngine(locate=two.locate, fetch=two.fetch, settings=settings)
        await engine.start()
        try:
            revision = Revision(
                name="iris-00001", version=1, digest=version.digest, size=version.size, signature=version.signature
            )
            await engine.apply(Service(IRIS, (revision,), (TrafficTarget("iris-00001", 100),), ScalingPolicy()))
            inputs = [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]
            request = UpstreamRequest(
                "POST",
                "/v2/models/iris/infer",
                [(b"content-type", b"application/json")],
                [orjson.dumps({"inputs": inputs})],
            )
            deadline = asyncio.get_running_loop().time() + 60
            async with engine.lease(RevisionKey(IRIS, "iris-00001"), deadline) as upstream:
                answer = await upstream.send(request)
            document = orjson.loads(answer.body)
            assert np.isclose(document["outputs"][0]["data"], [2.0]).all()
            log = engine.status(IRIS).revision("iris-00001")
            assert log.reason == ""
        finally:
            await engine.stop()


async def test_a_wake_whose_file_is_gone_says_so(s3, database):
    async with gateway(s3, database) as registry:
        with pytest.raises(Unavailable, match="missing") as raised:
            await registry.fetch("0" * 64)
        assert raised.value.code == "artifact_missing"
