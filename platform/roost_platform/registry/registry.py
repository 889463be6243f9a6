"""The registry: takes uploads in, gives versions out, and keeps files and rows together.

The order that makes a crash harmless: a file is durable before a row names it, and a row is gone before its file is.
What a crash leaves is then always a file without a row, which `sweep` removes.

Several gateways may share a database and a store. Both steps are then taken under the database's lock of this digest, so
that a file never goes while a row is coming; and only who leads removes what it did not put, after a while.
"""

import asyncio
import logging
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from roost_platform.database.connection import Database
from roost_platform.database.history import ROOST, Act
from roost_platform.domain.errors import Conflict, ModelRejected, RoostError, StorageFull, Unavailable
from roost_platform.domain.services import ServiceKey
from roost_platform.domain.tenants import Quota
from roost_platform.registry import versions
from roost_platform.registry.check_meter import CheckMeter, Tell, tell_nobody
from roost_platform.registry.check_process import JobTime
from roost_platform.registry.checking import Checker, CheckReport
from roost_platform.registry.finishing import KeyedLocks, Threads, in_thread, to_the_end
from roost_platform.registry.reports import KeptReports
from roost_platform.registry.store import ArtifactStore, artifact_missing
from roost_platform.registry.uploads import ReceivedFile, empty_folder, receive
from roost_platform.registry.versions import NewVersion, Version

logger = logging.getLogger(__name__)

_now = partial(datetime.now, UTC)
_STORE_CALLS = 8
"""At once; uploads and fetches wait for their turn."""


@dataclass(frozen=True, slots=True)
class Registered:
    version: Version
    created: bool
    """False when these bytes were a version of the model already."""


class Located(NamedTuple):
    """The file that a replica opens. A tuple: that is how engines are told."""

    path: Path
    baked: bool
    """It is optimised already and fits this machine: open it as it is."""


class Registry:
    """One per data folder; several may share the database and the store."""

    def __init__(
        self,
        *,
        database: Database,
        store: ArtifactStore,
        checker: Checker,
        staging: Path,
        clock: Callable[[], datetime] = _now,
        leads: Callable[[], bool] = lambda: True,
        orphan_age_s: float = 0,
        on_usage: Tell = tell_nobody,
        on_deleted: Callable[[Connection, Sequence[Version]], None] = lambda _, __: None,
    ) -> None:
        """`on_usage` is told how long each check of an upload ran, `on_deleted` of versions, in the transaction that deletes
        them.

        `leads`: whether this one sweeps artifacts now. `orphan_age_s`: how old an artifact without a version must be to
        be swept; where others put files into the same store, more than their longest upload takes.
        """
        self._database = database
        self._store = store
        self._checker = checker
        self._staging = staging
        self._clock = clock
        self._leads = leads
        self._orphan_age_s = orphan_age_s
        self._on_deleted = on_deleted
        self._check_meter = CheckMeter(tell=on_usage, clock=clock)
        self.checks: Counter[str] = Counter()  # of uploads, by result: `ok`, the code of the refusal, or `cancelled`
        self._store_calls = Threads(_STORE_CALLS, name="artifacts")
        # One upload or removal of the same bytes at a time, whoever asks: a file must not go while a row is coming.
        self._digests = KeyedLocks()
        self._reports = KeptReports()
        self._located: dict[str, Located] = {}
        self._build_key: str | None = None
        self._sound: set[str] = set()
        """Digests whose baked model was stored, or is being verified or made anew, by this process."""
        self._fetching: dict[str, asyncio.Task[Path]] = {}
        self._working: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Remove what a crash left: staged files, what `sweep` does, baked models that fit nothing."""
        await in_thread(empty_folder, self._staging)
        await self.sweep()
        used = await self._database.read(versions.used_digests)
        try:
            self._build_key = await self._checker.build_key()
        except (Unavailable, ModelRejected):
            self._build_key = None  # models are served elsewhere; what was baked here may be wanted again
        await in_thread(self._store.sweep_baked, self._build_key, used)

    async def stop(self) -> None:
        """End the processes that judge files, and wait for what is being fetched, sealed or verified."""
        self._checker.close()
        self._store.close()
        await asyncio.gather(*self._fetching.values(), return_exceptions=True)
        await asyncio.gather(*self._working)

    async def run(self, *, interval_s: float = 3600) -> None:
        """Sweep now and then, until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self.sweep()
            except RoostError as error:  # the database is out of reach
                logger.warning("sweep_failed", extra={"reason": error.code})

    async def sweep(self) -> None:
        """Remove what no version names: baked models of this machine, and, where this gateway leads, artifacts."""
        if self._leads():
            await self._sweep_store()
        baked = await in_thread(self._store.baked_digests)
        for digest in baked - await self._database.read(versions.used_digests):
            async with self._digests.hold(digest):
                if not await self._database.read(versions.is_used, digest):
                    self._forget(digest)
                    await in_thread(self._store.delete_baked, digest)

    async def _sweep_store(self) -> None:
        """A store that is out of reach is swept another time."""
        try:
            held = await self._store_calls.run(self._store.digests, older_than_s=self._orphan_age_s)
            await self._store_calls.run(self._store.abandon_uploads, older_than_s=self._orphan_age_s)
            for digest in held - await self._database.read(versions.used_digests):
                async with self._digests.hold(digest), self._alone_with(digest):
                    await self._delete_unused(digest)
        except Unavailable as error:
            if error.code != "artifact_store":
                raise
            logger.warning("sweep_failed", extra={"reason": error.code})

    async def register(
        self,
        key: ServiceKey,
        chunks: AsyncIterator[bytes],
        *,
        limit_bytes: int,
        declared_size: int | None = None,
        expected_digest: str | None = None,
        quota: Quota,
    ) -> Registered:
        """Take a file in as the next version of a model, which is made when absent. A failure leaves nothing behind.

        Raises what `receive` and `Checker.check` raise, Throttled (quota_exceeded), NotFound (no such tenant) and
        StorageFull.
        """
        self._checker.prepare()
        async with (
            receive(
                chunks,
                folder=self._staging,
                limit_bytes=limit_bytes,
                declared_size=declared_size,
                expected_digest=expected_digest,
            ) as received,
            self._digests.hold(received.digest),
        ):
            known = await self._database.read(versions.find_digest, key, received.digest)
            if known is not None:
                return Registered(known, created=False)
            await self._database.read(versions.require_room, key, received.size, quota)
            return await self._check_and_keep(key, received, quota)

    async def version(self, key: ServiceKey, number: int) -> Version:
        """Raises NotFound."""
        return await self._database.read(versions.find_version, key, number)

    async def versions(self, key: ServiceKey) -> tuple[Version, ...]:
        """Oldest first. Raises NotFound when there is no such model."""
        return await self._database.read(versions.list_versions, key)

    async def storage_used(self, tenant: str) -> int:
        """Bytes of all versions of a tenant."""
        return await self._database.read(versions.storage_used, tenant)

    async def delete_model(
        self, key: ServiceKey, *, by: str = ROOST, drained: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Delete a model's rows, then the artifacts that no other version uses, or leave those to `sweep`. Raises NotFound.

        `drained` is awaited in between: what still runs may need the files.
        """
        await to_the_end(self._delete_model(key, by, drained))

    def locate(self, digest: str) -> Located | None:
        """The file to open for a digest: baked where this machine has it; None when it must be fetched first. Cheap.

        A baked model of an earlier run is compared with its digests beside its first load, and a model that has none on
        this machine is baked then: no wake should wait for either.
        """
        located = self._located.get(digest) or self._find(digest)
        if located is None:
            return None
        if self._build_key is not None and digest not in self._sound:
            self._sound.add(digest)
            work = self._verify_baked if located.baked else self._bake_again
            self._beside(work(digest, self._build_key))
        return located

    async def fetch(self, digest: str) -> Located:
        """Bring a file to this machine, then as `locate`; who asks for the same one meanwhile waits for the same.

        Raises Unavailable (artifact_missing, artifact_damaged, artifact_store) or StorageFull.
        """
        fetching = self._fetching.get(digest)
        if fetching is None:
            work = self._store_calls.run(self._store.fetch, digest)
            fetching = self._fetching[digest] = asyncio.get_running_loop().create_task(work)
            fetching.add_done_callback(partial(self._fetched, digest))
        await asyncio.shield(fetching)
        located = self.locate(digest)
        if located is None:
            raise artifact_missing()
        return located

    def _fetched(self, digest: str, fetching: asyncio.Task[Path]) -> None:
        del self._fetching[digest]
        fetching.exception()  # seen: those who wait are told, and they may all be gone

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this while others go on; `stop` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    async def _seal_baked(self, digest: str, build_key: str) -> None:
        """Nobody waits for the disk: until it is sealed, a baked model is one for this run only."""
        async with self._digests.hold(digest):
            try:
                await in_thread(self._store.seal_baked, digest, build_key)
            except (StorageFull, OSError) as error:
                logger.warning("baked_model_not_sealed", extra={"digest": digest, "reason": str(error)})

    async def _verify_baked(self, digest: str, build_key: str) -> None:
        """Drop a baked model that is no longer what was stored; its raw file, which has its own digest, is used then."""
        async with self._digests.hold(digest):
            if not await in_thread(self._store.verify_baked, digest, build_key):
                logger.warning("baked_model_damaged", extra={"digest": digest})
                self._reports.forget(digest)
                self._located.pop(digest, None)

    async def _bake_again(self, digest: str, build_key: str) -> None:
        """Bake a model that was uploaded under another build or processor, or whose bake was lost."""
        bake_dir = self._staging / f"{uuid4().hex}.baked"
        try:
            async with self._digests.hold(digest):
                path = self._store.locate(digest)
                if path is None or await in_thread(self._store.was_baked, digest, build_key):
                    return
                await in_thread(bake_dir.mkdir, 0o700)
                report = await self._checker.check(path, bake_dir)
                if report.build_key == build_key:
                    await to_the_end(in_thread(self._store.put_baked, bake_dir, digest, build_key))
                    self._located.pop(digest, None)
            await self._seal_baked(digest, build_key)
        except (RoostError, OSError) as error:  # it is served as it was uploaded, as before
            logger.warning("baking_failed", extra={"digest": digest, "reason": str(error)})
        finally:
            await in_thread(shutil.rmtree, bake_dir, ignore_errors=True)

    def _find(self, digest: str) -> Located | None:
        baked = self._store.locate_baked(digest, self._build_key) if self._build_key else None
        if baked is not None:
            located = self._located[digest] = Located(baked, baked=True)
            return located
        path = self._store.locate(digest)  # asked anew each time: the store counts it as a use
        return None if path is None else Located(path, baked=False)

    async def _check_and_keep(self, key: ServiceKey, received: ReceivedFile, quota: Quota) -> Registered:
        bake_dir = self._staging / f"{uuid4().hex}.baked"
        await in_thread(bake_dir.mkdir, 0o700)
        spent, number = JobTime(), 0
        try:
            report = self._remembered(received.digest)
            fresh = report is None
            if report is None:
                report = await self._checked(received.path, bake_dir, spent)
            new = NewVersion(
                key=key,
                digest=received.digest,
                size=received.size,
                signature=report.signature,
                memory_bytes=report.memory_bytes,
                created_at=self._clock(),
            )
            kept = await to_the_end(self._keep(received.path, bake_dir if fresh else None, report, new, quota))
            number = kept.version.number
            return kept
        finally:
            self._check_meter.ran(key, number, spent.us)
            await in_thread(shutil.rmtree, bake_dir, ignore_errors=True)

    async def _checked(self, path: Path, bake_dir: Path, spent: JobTime) -> CheckReport:
        """The file is written out to its disk while it is judged: that takes as long, and most files are good."""
        flushing = asyncio.create_task(in_thread(self._store.flush, path))
        try:
            report = await self._checker.check(path, bake_dir, spent)
            self.checks["ok"] += 1
        except BaseException as error:
            self.checks[error.code if isinstance(error, RoostError) else "cancelled"] += 1
            await to_the_end(asyncio.wait([flushing]))
            flushing.exception()  # seen: what the checker said comes first
            raise
        await flushing
        return report

    async def _keep(
        self, path: Path, bake_dir: Path | None, report: CheckReport, new: NewVersion, quota: Quota
    ) -> Registered:
        """File, then row; a file whose row does not come is taken back."""
        async with self._alone_with(new.digest):
            await self._store_calls.run(self._store.put, path, new.digest)
            try:
                if bake_dir is not None:
                    await in_thread(self._store.put_baked, bake_dir, new.digest, report.build_key)
                    self._sound.add(new.digest)
                version, created = await self._add_row(new, quota)
            except BaseException:
                with suppress(RoostError):  # what stays is swept; why there is no row says more
                    await self._delete_unused(new.digest)
                raise
        self._build_key = report.build_key
        self._reports.keep(new.digest, report)
        self._located.pop(new.digest, None)
        if bake_dir is not None:
            self._beside(self._seal_baked(new.digest, report.build_key))
        return Registered(version, created)

    async def _add_row(self, new: NewVersion, quota: Quota) -> tuple[Version, bool]:
        try:
            return await self._database.write(versions.add_version, new, quota)
        except IntegrityError:  # another gateway on the same database was a moment faster
            known = await self._database.read(versions.find_digest, new.key, new.digest)
            if known is None:
                raise Conflict("the model was changed by somebody else at the same time") from None
            return known, False

    async def _delete_model(self, key: ServiceKey, by: str, drained: Callable[[], Awaitable[None]] | None) -> None:
        gone = await self._database.write(self._delete_rows, key, by)
        if drained is not None:
            await drained()
        try:
            for digest in {version.digest for version in gone}:
                async with self._digests.hold(digest), self._alone_with(digest):
                    await self._delete_unused(digest)
        except Unavailable as error:  # the model is gone all the same; what stays of it is swept
            logger.warning("artifacts_left", extra={"model": str(key), "reason": error.code})

    def _delete_rows(self, connection: Connection, key: ServiceKey, by: str) -> tuple[Version, ...]:
        gone = versions.delete_model_rows(connection, key, Act(self._clock(), by))
        self._on_deleted(connection, gone)
        return gone

    def _alone_with(self, digest: str) -> AbstractAsyncContextManager[None]:
        """No other gateway puts or removes these bytes meanwhile."""
        return self._database.exclusive(f"artifact/{digest}")

    async def _delete_unused(self, digest: str) -> None:
        """Remove an artifact that no version names. The caller holds both of the digest's locks."""
        if await self._database.read(versions.is_used, digest):
            return
        self._forget(digest)
        await self._store_calls.run(self._store.delete, digest)

    def _forget(self, digest: str) -> None:
        self._reports.forget(digest)
        self._located.pop(digest, None)
        self._sound.discard(digest)

    def _remembered(self, digest: str) -> CheckReport | None:
        """A report on the same bytes, when what belongs to it is still stored."""
        report = self._reports.get(digest)
        if report is None or self._store.locate(digest) is None:
            return None
        return report if not report.baked or self._store.locate_baked(digest, report.build_key) else None
