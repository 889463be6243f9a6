"""A kill campaign: one server with everything going on at once, its processes killed at random moments, then judged."""

import asyncio
import os
import random
import signal
from collections import Counter
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from campaign_clients import TENANT, Caller, History, call_until_gone
from campaign_registered import adding
from roost_gateway.client import RoostClient, ServerNotThere
from roost_process import Process, RoostProcess, descendants, until, wait_until_gone

CLIENTS = 4
FIRST_VERSIONS = [1, 2, 3]
MOST_VERSIONS = 15
"""Of model `one`: more would push the first ones out of the revisions that are kept."""
GONE_S = 20.0
"""Bounds a hang: what was killed, and all below it, is gone by then."""
SPARE, ZYGOTE, MODELS = "roost:spare", "roost:zygote", ("roost:one", "roost:model-")
"""How processes are called, by their first letters."""


class Campaign:
    """One server on one folder. The operator changes versions and uploads while clients call; `killed` counts victims."""

    def __init__(self, folder: Path, seed: int, **settings: str) -> None:
        folder.mkdir()
        self.chance = random.Random(seed)
        self.server = RoostProcess(folder, **settings)
        self.history = History()
        self.killed: Counter[str] = Counter()
        self.changes = 0
        self.unknown = 0
        """Calls that were under way when their gateway was killed."""
        self.constants: dict[str, int] = {}
        """Digest of every file that was ever sent → the number that its model adds."""
        self.accepted: dict[tuple[str, int], str] = {}
        """Model and version that the server said it took → digest."""
        self.current: set[int] | None = None
        """Versions of `one` of which one must have the traffic; None = an upload ended without an answer."""
        self._folder = folder
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self, victims: list[str], kills_at_start: int) -> None:
        """Kill in this order, each at a random moment. The last one must be the gateway."""
        await asyncio.to_thread(self._set_up)
        lives = victims.count("gateway")
        at_start = Counter(self.chance.randrange(lives) for _ in range(kills_at_start))
        for victim in victims:
            if not self._tasks:
                await self._begin_life()
            await asyncio.sleep(self.chance.uniform(0.0, 0.2))
            if victim == "gateway":
                await self._kill_gateway()
                for _ in range(at_start[self.killed["gateway"]]):
                    await self._kill_at_start()
                self.server.spawn()
            else:
                await asyncio.to_thread(self._kill_below, victim)
            self.killed[victim] += 1
        await asyncio.to_thread(self.server.wait_until_ready)

    def _set_up(self) -> None:
        self.server.start()
        self.key = self.server.make_tenant(TENANT)
        for number in FIRST_VERSIONS:
            file, digest = self._new_file()
            self.server.deploy(self.key, "one", file, window=6)
            self.accepted["one", number] = digest
        self.current = {FIRST_VERSIONS[-1]}

    def _new_file(self) -> tuple[Path, str]:
        number = len(self.constants) + 1
        content = adding(number)
        file = self._folder / f"add-{number}.onnx"
        file.write_bytes(content)
        digest = sha256(content).hexdigest()
        self.constants[digest] = number
        return file, digest

    # A life: from ready to killed

    async def _begin_life(self) -> None:
        await asyncio.to_thread(self.server.wait_until_ready)
        await asyncio.to_thread(self._check_traffic)
        port, chance = self.server.port, self.chance
        calls = [call_until_gone(port, self.key, self.history, chance, FIRST_VERSIONS) for _ in range(CLIENTS)]
        self._tasks = [asyncio.create_task(work) for work in (*calls, self._operate())]

    def _check_traffic(self) -> None:
        """What was acknowledged before the kill holds after it; what was not has happened whole, or not at all."""
        with self.server.client(self.key) as client:
            (target,) = client.model("one")["traffic"]
        assert target["percent"] == 100
        assert self.current is None or target["version"] in self.current, (target, self.current)

    async def _operate(self) -> None:
        """Change versions and upload, one thing after another, until the server is gone."""
        with self.server.client(self.key) as client, suppress(ServerNotThere):
            while True:
                await asyncio.sleep(self.chance.uniform(0.0, 0.1))
                if self.chance.random() < 0.85:
                    await asyncio.to_thread(self._roll_back, client, self.chance.choice(FIRST_VERSIONS))
                elif self.chance.random() < 0.5 and len(self.accepted) < MOST_VERSIONS:
                    await asyncio.to_thread(self._upload, client, "one")
                else:
                    await asyncio.to_thread(self._upload, client, f"model-{len(self.constants)}")

    def _roll_back(self, client: RoostClient, version: int) -> None:
        if self.current is not None:
            self.current |= {version}
        client.rollback("one", version)
        self.current = {version}
        self.changes += 1

    def _upload(self, client: RoostClient, model: str) -> None:
        file, digest = self._new_file()
        before, self.current = self.current, None if model == "one" else self.current
        document = client.upload(model, file, options={"window": 6})
        assert document["digest"] == digest
        self.accepted[model, document["version"]] = digest
        if model == "one":
            self.current = None if before is None else before | {document["version"]}

    # The killing

    async def _kill_gateway(self) -> None:
        children = self.server.kill()  # on the loop's thread, so that no client runs between the two
        await asyncio.gather(*self._tasks)
        self._tasks = []
        await asyncio.to_thread(wait_until_gone, children, GONE_S)

    async def _kill_at_start(self) -> None:
        self.server.spawn()
        await asyncio.sleep(self.chance.uniform(0.05, 1.0))
        await self._kill_gateway()
        self.killed["gateway at start"] += 1

    def _kill_below(self, victim: str) -> None:
        """Kill the zygote, or what it forked: mostly what serves or loads a model, sometimes a spare."""
        names: tuple[str, ...] = MODELS
        if victim == "zygote":
            names = (ZYGOTE,)
        elif self.chance.random() < 0.2:
            names = (SPARE,)
        found: list[Process] = []

        def one_is_there() -> bool:
            found[:] = [process for process in self.server.children() if process.name.startswith(names)]
            return bool(found)

        until(one_is_there, within=GONE_S, what=f"a {victim} to kill\n{self.server.log_tail()}")
        process = self.chance.choice(found)
        below = descendants(process.pid)
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(process.pid)
            if process.lives():  # and so the handle is of this one
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)
        wait_until_gone([process, *below], GONE_S)

    # The judgement

    async def check(self) -> None:
        await asyncio.to_thread(self._check_ledger)
        await asyncio.to_thread(self._check_balance)
        await asyncio.to_thread(self._check_files)
        await self._check_versions()

    def _check_ledger(self) -> None:
        rows = self.server.shipped_ledger(self.key, "source, sequence, request_id, status, outcome")
        counted = Counter(request_id for _, _, request_id, *_ in rows)
        answered = self.history.answered
        lost = answered.keys() - counted.keys()
        assert not lost, f"{len(lost)} of {len(answered)} answered calls were lost, {sorted(lost)[:5]} among them"
        assert max(counted.values()) == 1, f"counted more than once: {counted.most_common(5)}"
        assert counted.keys() <= self.history.sent
        for _, _, request_id, status, outcome in rows:
            assert answered.get(request_id, status) == status, (request_id, status)
            assert (outcome == "ok") == (status == 200)
        for source in {source for source, *_ in rows}:  # no gap: nothing was lost that nobody could have missed
            sequences = [sequence for each, sequence, *_ in rows if each == source]
            assert sequences == list(range(len(sequences)))
        with self.server.client(self.key) as client:
            assert client.usage()["total"]["requests"] == len(rows)

    def _check_balance(self) -> None:
        """Every call that any life took on was completed, refused for want of room, or is unknown; no answered one is."""
        query = "SELECT opened, completed, unstored, unknown, source FROM sources WHERE closed_at IS NOT NULL"
        lives = self.killed["gateway"] + self.killed["gateway at start"]
        of_lives = "SELECT count(*) FROM sources"
        until(
            lambda: len(self.server.query(query)) == self.server.query(of_lives)[0][0] - 1,
            within=GONE_S,
            what="that the books of all killed gateways are closed",
        )
        books = self.server.query(query)
        assert [book for book in books if book[0] != sum(book[1:4])] == []
        assert self.killed["gateway"] <= len(books) <= lives
        closed = {book[4] for book in books}
        rows = [row for row in self.server.ledger("source, requests, request_id") if row[0] in closed]
        assert sum(book[1] for book in books) == sum(requests for _, requests, _ in rows)
        unknown = [request_id for (request_id,) in self.server.query("SELECT request_id FROM unknown_calls")]
        assert len(unknown) == sum(book[3] for book in books)
        assert not set(unknown) & self.history.answered.keys()
        assert not set(unknown) & {request_id for *_, request_id in rows}
        self.unknown = len(unknown)
        assert not self.server.events("calls_unaccounted")
        assert not self.server.events("ledger_incomplete")

    def _check_files(self) -> None:
        """Every artifact is what its name says and belongs to a version; nothing else lies about."""
        with self.server.client(self.key) as client:
            named = {version["digest"] for version in _all_versions(client)}
        data = self.server.data
        artifacts = [file for file in (data / "artifacts").rglob("*") if file.is_file()]
        assert {file.name for file in artifacts} == named
        assert all(sha256(file.read_bytes()).hexdigest() == file.name for file in artifacts)
        assert {folder.name for folder in (data / "baked").glob("*/*")} <= named
        assert [file.name for file in (data / "staging").iterdir()] == []
        of_this_life = [file.suffix for file in sorted((data / "journal").iterdir(), key=lambda file: file.suffix)]
        assert of_this_life in ([".open"], [".jsonl", ".open"])
        known = {"artifacts", "baked", "journal", "lock", "outbox", "server.json", "staging"}
        assert {file.name for file in data.iterdir() if not file.name.startswith("roost.db")} == known

    async def _check_versions(self) -> None:
        """A version is whole and predicts right, or says that it must be uploaded again, and then is and does."""
        with self.server.client(self.key) as client:
            versions = await asyncio.to_thread(_all_versions, client)
            there = {(each["model"], each["version"]): each["digest"] for each in versions}
            assert self.accepted.items() <= there.items()
            for each in versions:
                file = self._folder / f"add-{self.constants[each['digest']]}.onnx"
                if each["state"] == "failed":
                    assert "upload it again" in each["reason"] or each["reason"].startswith("Cancelled"), each
                    again = await asyncio.to_thread(client.upload, each["model"], file, options={"window": 6})
                    assert (again["version"], again["digest"]) == (each["version"], each["digest"])
                async with Caller(self.server.port, self.key, self.history) as caller:
                    answer = await caller.call(each["model"], each["version"])
                    assert answer.status == 200, (each, answer, self.server.log_tail())
        for model, version, added in self.history.sums:
            assert added == self.constants[there[model, version]], (model, version, added)


def _all_versions(client: RoostClient) -> list[dict]:
    models = [document["model"] for document in client.models()["models"]]
    return [version for model in models for version in client.versions(model)["versions"]]
