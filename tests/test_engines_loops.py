"""The local engine's loops: once per period, whatever the event loop's timers do."""

import asyncio
from pathlib import Path

from roost_platform.engines.local.budget import Capacity
from roost_platform.engines.local.engine import SWEEP_S, LocalEngine, LocalSettings


async def test_the_loops_of_an_engine_never_run_more_often_than_they_should(tmp_path: Path):
    class Counting(LocalEngine):
        def __init__(self) -> None:
            super().__init__(
                locate=lambda digest: (tmp_path / digest, False),
                settings=LocalSettings(capacity=Capacity(1 << 30, 1), spares=0, runtimes={}),
            )
            self.sweeps = 0

        def sweep(self) -> None:
            self.sweeps += 1

    engine = Counting()
    begin = asyncio.get_running_loop().time()
    await engine.start()
    while engine.sweeps < 5:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    ran = asyncio.get_running_loop().time() - begin
    await engine.stop()
    assert engine.sweeps <= ran / SWEEP_S + 1
