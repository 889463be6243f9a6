"""What a kind of database must offer to `Database`; `sqlite.py` and `postgres.py` do."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from roost_platform.domain.errors import StorageFull, Unavailable

T = TypeVar("T")


class Session(ABC):
    """A connection of its own, used from the event loop, for what lasts longer than a transaction.

    Every method raises Unavailable when the connection is lost, or silent for too long.
    """

    @abstractmethod
    async def run(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement, committed at once; the rows it gives (none when it is of a kind that has no rows)."""

    @abstractmethod
    async def heard(self, timeout_s: float) -> bool:
        """Wait for a notification; False when none came. A connection that is closed meanwhile is noticed at once."""

    @abstractmethod
    async def lock(self, name: str) -> None:
        """Wait, for however long, until no other session has locked this name; it is let go with the connection."""


class Backend(ABC):
    """One database, given by URL."""

    shared: bool
    """Other gateways may use this database, too."""
    engine: Engine
    writing: Engine
    reading: Engine
    """The engine for transactions that write, and for those that only read, which see one state of the database."""
    writers: int
    readers: int
    """How many transactions of each kind run at a time, each on a thread."""
    answer_s: float | None
    """How long anyone waits for a transaction, waiting for a thread included; None = as long as it takes."""

    @abstractmethod
    def run(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction. Raises Unavailable or StorageFull when the database does not take it."""

    @abstractmethod
    def session(self, *, name: str, settings: Mapping[str, str]) -> AbstractAsyncContextManager[Session]:
        """A connection called `name`, with further settings of the server's. Raises Unavailable. Of shared databases only."""


def no_answer() -> Unavailable:
    return Unavailable("the database does not answer right now", code="database", retry_after_s=1)


def disk_full() -> StorageFull:
    return StorageFull("the disk that holds the database is full")
