"""The registry: takes uploads in, gives versions out, and keeps files and rows together.

The order that makes a crash harmless: a file is durable before a row names it, and a row is gone before its file is.
What a crash leaves is then always a file without a row, which `start` sweeps.
"""

import asyncio
import logging
import shutil
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy.exc import IntegrityError

from roost_platform.database.connection import Database
from roost_platform.domain.errors import Conflict, ModelRejected, RoostError, StorageFull, Unavailable
from roost_platform.domain.services import ServiceKey
from roost_platform.domain.tenants import Quota
from roost_platform.registry import versions
from roost_platform.registry.checking import Checker, CheckReport
from roost_platform.registry.finishing import KeyedLocks, in_thread, to_the_end
from roost_platform.registry.store import ArtifactStore
from roost_platform.registry.uploads import ReceivedFile, receive
from roost_platform.registry.versions import NewVersion, Version

logger = logging.getLogger(__name__)

_REPORTS_KEPT = 256


@dataclass(frozen=True, slots=True)
class Registered:
    version: Version
    created: bool
    """False when these bytes were a version of the model already."""


@dataclass(frozen=True, slots=True)
class Located:
    """The file that a replica opens."""

    path: Path
    baked: bool
    """It is optimised already and fits this machine: open it as it is."""


def _now() -> datetime:
    return datetime.now(UTC)


class Registry:
    """One per data folder."""

    def __init__(
        self,
        *,
        database: Database,
        store: ArtifactStore,
        checker: Checker,
        staging: Path,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._database = database
        self._store = store
        self._checker = checker
        self._staging = staging
        self._clock = clock
        # One upload or removal of the same bytes at a time, whoever asks: a file must not go while a row is coming.
        self._digests = KeyedLocks()
        self._reports: OrderedDict[str, CheckReport] = OrderedDict()
        self._located: dict[str, Located] = {}
        self._build_key: str | None = None
        self._sound: set[str] = set()
        """Digests whose baked model was stored, or is being verified or made anew, by this process."""
        self._working: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Remove what a crash left: staged files, artifacts without a version, baked models that fit nothing."""
        await in_thread(_empty_folder, self._staging)
        used = await self._database.read(versions.used_digests)
        for digest in await in_thread(self._store.digests) - used:
            await in_thread(self._store.delete, digest)
        try:
            self._build_key = await self._checker.build_key()
        except (Unavailable, ModelRejected):
            self._build_key = None  # models are served elsewhere; what was baked here may be wanted again
        await in_thread(self._store.sweep_baked, self._build_key, used)

    async def stop(self) -> None:
        """End the processes that judge files, and wait for what is being sealed or verified."""
        self._checker.close()
        await asyncio.gather(*self._working)

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

    async def delete_model(self, key: ServiceKey) -> None:
        """Delete a model's rows, then the artifacts that no other version uses. Raises NotFound."""
        await to_the_end(self._delete_model(key))

    def locate(self, digest: str) -> Located:
        """The file to open for a digest: baked where this machine has it. Cheap: the answer is remembered.

        A baked model of an earlier run is compared with its digests beside its first load, and a model that has none on
        this machine is baked then: no wake should wait for either. Raises Unavailable when the file of a version is gone.
        """
        located = self._located.get(digest)
        if located is None:
            located = self._located[digest] = self._find(digest)
            if self._build_key is not None and digest not in self._sound:
                self._sound.add(digest)
                work = self._verify_baked if located.baked else self._bake_again
                self._beside(work(digest, self._build_key))
        return located

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
                self._reports.pop(digest, None)
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

    def _find(self, digest: str) -> Located:
        baked = self._store.locate_baked(digest, self._build_key) if self._build_key else None
        path = baked or self._store.locate(digest)
        if path is None:
            raise Unavailable("the stored file of this version is missing", code="artifact_missing")
        return Located(path, baked=baked is not None)

    async def _check_and_keep(self, key: ServiceKey, received: ReceivedFile, quota: Quota) -> Registered:
        bake_dir = self._staging / f"{uuid4().hex}.baked"
        await in_thread(bake_dir.mkdir, 0o700)
        try:
            report = self._remembered(received.digest)
            fresh = report is None
            if report is None:
                report = await self._checked(received.path, bake_dir)
            new = NewVersion(
                key=key,
                digest=received.digest,
                size=received.size,
                signature=report.signature,
                memory_bytes=report.memory_bytes,
                created_at=self._clock(),
            )
            return await to_the_end(self._keep(received.path, bake_dir if fresh else None, report, new, quota))
        finally:
            await in_thread(shutil.rmtree, bake_dir, ignore_errors=True)

    async def _checked(self, path: Path, bake_dir: Path) -> CheckReport:
        """The file is written out to its disk while it is judged: that takes as long, and most files are good."""
        flushing = asyncio.create_task(in_thread(self._store.flush, path))
        try:
            report = await self._checker.check(path, bake_dir)
        except BaseException:
            await to_the_end(asyncio.wait([flushing]))
            flushing.exception()  # seen: what the checker said comes first
            raise
        await flushing
        return report

    async def _keep(
        self, path: Path, bake_dir: Path | None, report: CheckReport, new: NewVersion, quota: Quota
    ) -> Registered:
        """File, then row; a file whose row does not come is taken back."""
        try:
            await in_thread(self._store.put, path, new.digest)
            if bake_dir is not None:
                await in_thread(self._store.put_baked, bake_dir, new.digest, report.build_key)
                self._sound.add(new.digest)
            version, created = await self._add_row(new, quota)
        except BaseException:
            await self._delete_unused(new.digest)
            raise
        self._build_key = report.build_key
        self._remember(new.digest, report)
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

    async def _delete_model(self, key: ServiceKey) -> None:
        for digest in await self._database.write(versions.delete_model_rows, key):
            async with self._digests.hold(digest):
                await self._delete_unused(digest)

    async def _delete_unused(self, digest: str) -> None:
        """Remove an artifact that no version names. The caller holds the digest's lock."""
        if await self._database.read(versions.is_used, digest):
            return
        self._reports.pop(digest, None)
        self._located.pop(digest, None)
        self._sound.discard(digest)
        await in_thread(self._store.delete, digest)

    def _remembered(self, digest: str) -> CheckReport | None:
        """A report on the same bytes, when what belongs to it is still stored."""
        report = self._reports.get(digest)
        if report is None or self._store.locate(digest) is None:
            return None
        return report if not report.baked or self._store.locate_baked(digest, report.build_key) else None

    def _remember(self, digest: str, report: CheckReport) -> None:
        self._reports[digest] = report
        self._reports.move_to_end(digest)
        if len(self._reports) > _REPORTS_KEPT:
            self._reports.popitem(last=False)


def _empty_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
