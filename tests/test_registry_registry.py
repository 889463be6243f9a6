"""The registry end to end: real files, real checks, a real database; nothing left behind by a failure or a kill."""

import asyncio
import hashlib
import signal
import sys

import pytest
from sqlalchemy import func, insert, select

import hostile_models as hostile
from registry_parts import IRIS, NOON, add_tenants, adding, body, build_registry, files_in, open_database
from roost_platform.database.tables import models, revisions, versions
from roost_platform.domain.errors import ModelRejected, NotFound, StorageFull, Throttled, TooLarge, Unavailable
from roost_platform.domain.scaling import ScalingPolicy
from roost_platform.domain.services import ServiceKey
from roost_platform.domain.tenants import Quota
from roost_platform.registry.checking import Checker
from roost_platform.registry.store import DiskStore

pytestmark = pytest.mark.usefixtures("each_database")

ONE = adding(1)
TWO = adding(2)
OTHER = ServiceKey("other", "iris")


@pytest.fixture
def database(tmp_path):
    with open_database(tmp_path, "acme", "other") as opened:
        yield opened


@pytest.fixture
async def registry(tmp_path, database):
    made = build_registry(tmp_path, database)
    await made.start()
    yield made
    await made.stop()


class CountingChecker(Checker):
    """Counts what it is asked, and does it."""

    checks = 0

    async def check(self, path, bake_dir, spent=None):
        self.checks += 1
        return await super().check(path, bake_dir, spent)


def register(registry, data, key=IRIS, **options):
    return registry.register(key, body(data), **{"limit_bytes": 1_000_000, "quota": Quota(), **options})


def count(database, table) -> int:
    with database.engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(table))


async def test_an_upload_becomes_version_one_of_a_new_model(registry, database, tmp_path):
    digest = hashlib.sha256(ONE).hexdigest()
    registered = await register(registry, ONE, declared_size=len(ONE), expected_digest=digest)
    version = registered.version
    assert registered.created
    assert (version.key, version.number, version.digest, version.size) == (IRIS, 1, digest, len(ONE))
    assert version.created_at == NOON
    assert version.memory_bytes > 0
    assert await registry.version(IRIS, 1) == version
    assert await registry.versions(IRIS) == (version,)
    with database.engine.connect() as connection:
        (row,) = connection.execute(select(models))
    assert row.scaling == ScalingPolicy().to_json()
    assert (row.traffic, row.last_version, row.last_generation) == ([], 1, 0)
    located = registry.locate(digest)
    assert located.baked
    assert located.path.name == "model.onnx"
    assert list((tmp_path / "staging").iterdir()) == []


async def test_versions_are_numbered_and_listed_oldest_first(registry):
    for number, data in enumerate((ONE, TWO), start=1):
        registered = await register(registry, data)
        assert (registered.version.number, registered.created) == (number, True)
    assert [v.number for v in await registry.versions(IRIS)] == [1, 2]


async def test_the_same_bytes_again_give_the_version_there_is_without_another_check(tmp_path, database):
    checker = CountingChecker()
    registry = build_registry(tmp_path, database, checker=checker)
    await registry.start()
    first = await register(registry, ONE)
    again = await register(registry, ONE)
    assert (again.created, again.version) == (False, first.version)
    assert checker.checks == 1


async def test_the_same_bytes_twice_at_once_make_one_version(registry, database):
    both = await asyncio.gather(register(registry, ONE), register(registry, ONE))
    assert sorted(r.created for r in both) == [False, True]
    assert both[0].version == both[1].version
    assert count(database, versions) == 1


async def test_different_bytes_at_once_make_two_versions(registry):
    both = await asyncio.gather(register(registry, ONE), register(registry, TWO))
    assert {r.version.number for r in both} == {1, 2}
    assert all(r.created for r in both)


async def test_another_tenant_shares_the_file_but_not_the_version(registry, tmp_path):
    mine = await register(registry, ONE)
    theirs = await register(registry, ONE, OTHER)
    assert theirs.created
    assert theirs.version.key == OTHER
    assert theirs.version.signature == mine.version.signature
    assert len([f for f in files_in(tmp_path) if f.startswith("artifacts")]) == 1
    await registry.delete_model(IRIS)
    assert registry.locate(mine.version.digest).path.exists()
    await registry.delete_model(OTHER)
    with pytest.raises(Unavailable):
        await registry.fetch(mine.version.digest)
    assert files_in(tmp_path) == []


async def refused(registry, database, tmp_path, kind, data, **options):
    with pytest.raises(kind) as raised:
        await register(registry, data, **options)
    assert files_in(tmp_path) == []
    assert count(database, models) == count(database, versions) == 0
    return raised.value


async def test_a_refused_first_upload_leaves_no_model_and_no_file(registry, database, tmp_path):
    data = hostile.with_initializer(hostile.external("w")).SerializeToString()
    error = await refused(registry, database, tmp_path, ModelRejected, data)
    assert (error.code, error.field) == ("external_data", "w")


async def test_truncated_uploads_leave_nothing(registry, database, tmp_path):
    for size in range(0, len(ONE), len(ONE) // 4 + 1):
        error = await refused(registry, database, tmp_path, ModelRejected, ONE[:size])
        assert error.code in {"not_onnx", "unsupported_opset"}


async def test_a_file_over_the_limit_leaves_nothing(registry, database, tmp_path):
    await refused(registry, database, tmp_path, TooLarge, ONE, limit_bytes=10)


async def test_an_unknown_tenant_leaves_nothing(registry, database, tmp_path):
    await refused(registry, database, tmp_path, NotFound, ONE, key=ServiceKey("nobody", "iris"))


async def test_the_storage_quota_says_limit_and_used(registry, database):
    await register(registry, ONE)
    quota = Quota(storage_bytes=len(ONE) + len(TWO) - 1)
    with pytest.raises(Throttled, match=rf"{quota.storage_bytes} bytes: {len(ONE)} are used") as raised:
        await register(registry, TWO, quota=quota)
    assert (raised.value.code, raised.value.field) == ("quota_exceeded", "storage_bytes")
    assert await registry.storage_used("acme") == len(ONE)
    await register(registry, TWO, quota=Quota(storage_bytes=len(ONE) + len(TWO)))
    assert await registry.storage_used("acme") == len(ONE) + len(TWO)


async def test_the_model_quota_counts_models_not_versions(registry):
    await register(registry, ONE, quota=Quota(models=1))
    await register(registry, TWO, quota=Quota(models=1))
    with pytest.raises(Throttled, match="quota is 1 models: 1 are used"):
        await register(registry, ONE, ServiceKey("acme", "second"), quota=Quota(models=1))
    await register(registry, ONE, OTHER, quota=Quota(models=1))


async def test_parallel_uploads_cannot_pass_the_quota_together(registry, database, tmp_path):
    uploads = (register(registry, adding(n), ServiceKey("acme", f"m{n}"), quota=Quota(models=2)) for n in range(4))
    results = await asyncio.gather(*uploads, return_exceptions=True)
    assert sum(isinstance(r, Throttled) for r in results) == 2
    assert count(database, models) == 2
    assert len([f for f in files_in(tmp_path) if f.startswith("artifacts")]) == 2


async def test_a_disk_that_fills_up_while_storing_leaves_nothing(tmp_path, database):
    class FullStore(DiskStore):
        def put_baked(self, folder, digest, build_key):
            raise StorageFull("the disk that holds models is full")

    registry = build_registry(tmp_path, database, store=FullStore(tmp_path))
    await registry.start()
    await refused(registry, database, tmp_path, StorageFull, ONE)


async def test_a_cancelled_upload_leaves_nothing_while_it_is_checked(tmp_path, database):
    checking = asyncio.Event()

    class SlowChecker(Checker):
        async def check(self, path, bake_dir, spent=None):
            checking.set()
            await asyncio.Event().wait()

    registry = build_registry(tmp_path, database, checker=SlowChecker())
    await registry.start()
    task = asyncio.create_task(register(registry, ONE))
    await checking.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert files_in(tmp_path) == []


async def test_deleting_a_model_removes_rows_and_files(registry, database, tmp_path):
    await register(registry, ONE)
    with database.engine.begin() as connection:
        row = {"tenant": "acme", "model": "iris", "name": "iris-00001", "version": 1, "runtime": "onnx-cpu"}
        rest = {"max_batch_size": 1, "state": "ready", "reason": "", "created_at": NOON}
        connection.execute(insert(revisions).values(**row, **rest))
    await registry.delete_model(IRIS)
    assert count(database, models) == count(database, versions) == count(database, revisions) == 0
    assert files_in(tmp_path) == []
    for call in (registry.versions(IRIS), registry.version(IRIS, 1), registry.delete_model(IRIS)):
        with pytest.raises(NotFound):
            await call


async def test_a_deleted_model_can_be_uploaded_again(registry):
    await register(registry, ONE)
    await registry.delete_model(IRIS)
    registered = await register(registry, ONE)
    assert (registered.created, registered.version.number) == (True, 1)
    assert registry.locate(registered.version.digest).path.exists()


async def test_deleting_while_the_same_bytes_come_in_elsewhere_keeps_what_is_used(registry):
    await register(registry, ONE)
    _, theirs = await asyncio.gather(registry.delete_model(IRIS), register(registry, ONE, OTHER))
    assert registry.locate(theirs.version.digest).path.exists()


async def test_without_a_bake_the_raw_file_is_located_and_one_is_made_beside(tmp_path, registry, database):
    digest = (await register(registry, ONE)).version.digest
    await registry.stop()
    DiskStore(tmp_path).sweep_baked("f" * 16, set())
    fresh = build_registry(tmp_path, database)
    await fresh.start()
    located = fresh.locate(digest)
    assert not located.baked
    assert located.path.read_bytes() == ONE
    await fresh.stop()
    assert fresh.locate(digest).baked
    later = build_registry(tmp_path, database)
    await later.start()
    assert later.locate(digest).baked
    await later.stop()


async def test_a_start_sweeps_what_no_version_names(tmp_path, database, registry):
    digest = (await register(registry, ONE)).version.digest
    await registry.stop()
    stray = tmp_path / "artifacts" / "sha256" / "ee" / ("e" * 64)
    stray.parent.mkdir()
    stray.write_bytes(b"x")
    (tmp_path / "staging" / "half").write_bytes(b"x")
    (tmp_path / "staging" / "half.baked").mkdir()
    (tmp_path / "baked" / ("0" * 16) / digest).mkdir(parents=True)
    again = build_registry(tmp_path, database)
    await again.start()
    names = files_in(tmp_path)
    assert len(names) == 3  # the artifact, its bake, whose weights are too small for a file of their own, and its sums
    assert all(digest in name for name in names)
    assert again.locate(digest).baked


async def test_a_baked_model_that_rots_is_replaced_by_the_raw_file(registry, database, tmp_path):
    """It is noticed beside the first load of a later run, which uses it still; after that the raw file is."""
    digest = (await register(registry, ONE)).version.digest
    other = (await register(registry, TWO)).version.digest
    await registry.stop()
    path = registry.locate(digest).path
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    later = build_registry(tmp_path, database)
    await later.start()
    assert later.locate(digest).baked
    assert later.locate(other).baked
    await later.stop()
    located = later.locate(digest)
    assert (located.baked, located.path.read_bytes()) == (False, ONE)
    assert later.locate(other).baked
    assert (await register(later, ONE, OTHER)).created
    assert later.locate(digest).baked, "the same bytes were checked, and so baked, again"
    await later.stop()


async def test_a_machine_without_a_runtime_starts_and_refuses_uploads(tmp_path, database):
    registry = build_registry(tmp_path, database, checker=Checker(python="/absent/python"))
    await registry.start()
    await refused(registry, database, tmp_path, Unavailable, ONE)


@pytest.mark.parametrize("moment", ["file", "baked", "row"])
async def test_a_kill_between_file_and_row_leaves_neither_or_both(tmp_path, moment):
    """A real process is killed at this step of storing; the next start cleans up."""
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, str(tmp_path), moment)
    assert await process.wait() == -signal.SIGKILL
    left = files_in(tmp_path)
    assert any(name.startswith("artifacts") for name in left)
    with open_database(tmp_path) as database:
        registry = build_registry(tmp_path, database)
        await registry.start()
        if moment == "row":
            (version,) = await registry.versions(IRIS)
            assert not registry.locate(version.digest).baked, "nothing says that all of the bake is on the disk"
            await registry.stop()
            assert registry.locate(version.digest).baked, "so it was made again"
            assert not [name for name in files_in(tmp_path) if name.startswith("staging")]
        else:
            assert count(database, models) == 0
            assert files_in(tmp_path) == []


async def test_a_kill_between_row_and_file_of_a_deletion_leaves_neither_or_both(tmp_path):
    """The reverse: the row is gone, the file is not yet."""
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, str(tmp_path), "delete")
    assert await process.wait() == -signal.SIGKILL
    assert any(name.startswith("artifacts") for name in files_in(tmp_path))
    with open_database(tmp_path) as database:
        assert count(database, models) == count(database, versions) == 0
        await build_registry(tmp_path, database).start()
        assert files_in(tmp_path) == []


def register_and_die() -> None:
    """The other process of the test above."""
    import os
    from pathlib import Path

    folder, moment = Path(sys.argv[1]), sys.argv[2]

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    class DyingStore(DiskStore):
        def put(self, path, digest):
            super().put(path, digest)
            if moment == "file":
                die()

        def put_baked(self, bake, digest, build_key):
            super().put_baked(bake, digest, build_key)
            if moment == "baked":
                die()

    async def run() -> None:
        with open_database(folder) as database:
            add_tenants(database, "acme")
            registry = build_registry(folder, database, store=DyingStore(folder))
            await registry.start()
            write = database.write

            async def write_and_die(*arguments):
                result = await write(*arguments)
                die()
                return result

            database.write = write_and_die
            if moment == "delete":
                database.write = write
                await register(registry, ONE)
                database.write = write_and_die
                await registry.delete_model(IRIS)
            await register(registry, ONE)

    asyncio.run(run())


if __name__ == "__main__":
    register_and_die()
