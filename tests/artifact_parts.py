"""The internal artifact door on a real server, with services that have these files as their versions."""

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import uvloop

from roost_gateway.access.directory import Directory
from roost_gateway.access.routes import RevisionRecord, RevisionState, Route, revision_name
from roost_gateway.artifacts import ArtifactDoor
from roost_gateway.server import listen, make_server, url_of
from roost_gateway.settings import LimitSettings
from roost_platform.domain.scaling import ScalingPolicy
from roost_platform.domain.service_secrets import ServiceSecrets
from roost_platform.domain.services import Revision, ServiceKey
from roost_platform.domain.signatures import Signature
from roost_platform.registry.store import ArtifactStore
from s3_parts import digest_of

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
IRIS, OTHER = ServiceKey("acme", "iris"), ServiceKey("other", "iris")
SECRETS = ServiceSecrets(b"k" * 32)


@contextmanager
def serving_artifacts(
    store: ArtifactStore, services: Mapping[ServiceKey, Sequence[bytes]], **options: Any
) -> Iterator[str]:
    """The address, of a server on a thread; `services` have these contents as their versions 1, 2, 3 …"""
    listener = listen("127.0.0.1", 0)
    up = threading.Event()
    ending: list[Any] = []

    async def serve() -> None:
        door = ArtifactDoor(directory=_directory(services), secrets=SECRETS, store=store, **options)
        server = make_server(door, lane=None, grace_s=5, limits=LimitSettings())
        loop = asyncio.get_running_loop()
        ending.append(lambda: loop.call_soon_threadsafe(setattr, server, "should_exit", True))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)
        up.set()
        await serving

    thread = threading.Thread(target=lambda: uvloop.run(serve()))
    thread.start()
    up.wait()
    try:
        yield url_of(listener)
    finally:
        ending[0]()
        thread.join()


def path_of(content: bytes, key: ServiceKey = IRIS) -> str:
    return f"/internal/artifacts/{key}/{digest_of(content)}"


def bearer(key: ServiceKey = IRIS) -> dict[str, str]:
    return {"authorization": f"Bearer {SECRETS.of(key)}"}


def _directory(services: Mapping[ServiceKey, Sequence[bytes]]) -> Directory:
    directory = Directory()
    for key, contents in services.items():
        records = [_record(key, number, content) for number, content in enumerate(contents, start=1)]
        about = {"last_version": len(records), "created_at": NOON}
        directory.put_route(Route(key=key, scaling=ScalingPolicy(), traffic=(), records=records, **about))
    return directory


def _record(key: ServiceKey, number: int, content: bytes) -> RevisionRecord:
    revision = Revision(
        name=revision_name(key.model, number),
        version=number,
        digest=digest_of(content),
        size=len(content),
        signature=Signature((), ()),
    )
    return RevisionRecord(revision, RevisionState.READY, "", NOON)
