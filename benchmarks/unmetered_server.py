"""`roost serve` without metering: what it costs is the difference. Usage: unmetered_server.py PORT DATA.

Everything is Roost's own but the journal, which takes calls and does nothing with them. So nothing is shipped, either.
"""

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from roost_gateway.main import run
from roost_gateway.settings import Settings
from roost_platform.domain.errors import StorageFull
from roost_platform.metering.journal import Journal
from roost_platform.metering.syncer import Turn


class _Settled(Turn):
    """A turn that nobody has to wait for."""

    def then(self, told: Callable[[StorageFull | None], None]) -> None:
        told(None)


class _NoIntents:
    """Notes nothing."""

    opened = unstored = 0

    def open(self, *_: object) -> None:
        return None

    def close(self) -> None:
        return None


class Unmetered(Journal):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._real, self.intents = self.intents, _NoIntents()
        self._settled: Turn | None = None

    def close(self) -> None:
        super().close()
        self._real.close()

    def append(self, **_: object) -> None:  # type: ignore[override]
        return

    def written(self) -> Turn:
        if self._settled is None:
            self._settled = _Settled()
            self._settled.settle(None)
        return self._settled


if __name__ == "__main__":
    gc.disable()  # as `roost serve` does
    run(Settings(port=int(sys.argv[1]), data=Path(sys.argv[2])), make_journal=Unmetered)
