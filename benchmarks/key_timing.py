"""Whether the time of a refusal tells how wrong a key is: 10^5 near misses, timed one by one inside the process.

    python benchmarks/key_timing.py [tries]

In the process, because over a network the differences looked for would be lost in noise a thousand times as large: who
cannot tell the kinds of wrong keys apart here cannot tell them apart from outside. Kinds take turns in random order; of each
the mean of the middle 80 % is compared with that of keys made up at random (Welch's t).
"""

import asyncio
import random
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import fmean, variance
from time import perf_counter_ns

from roost_gateway.access.authentication import Authenticator
from roost_gateway.access.directory import Directory
from roost_gateway.access.keys import make_key
from roost_platform.database.connection import Database, sqlite_url
from roost_platform.domain.errors import Unauthenticated
from roost_platform.domain.tenants import Scope, hash_secret, make_secret

NOISE_T = 4.0
"""Beyond this many standard errors a difference is real."""
MATTERS_NS = 2_000
"""What a client on the same machine could still tell from the jitter of a loopback call (about 20 µs) with 10^5 tries."""
BASE = "made up"


def kinds(chance: random.Random, directory: Directory, now: datetime) -> dict[str, Callable[[], str]]:
    """Makers of wrong keys, by what is wrong with them; the keys that they come near to are in the directory."""
    made = {}
    for name in ("good", "revoked", "expired"):
        made[name] = make_key(
            tenant="acme", name=name, scopes=frozenset({Scope.ADMIN}), now=now - timedelta(days=2), expires_at=None
        )
    directory.put_key(made["good"].key, made["good"].digest)
    directory.put_key(replace(made["revoked"].key, revoked_at=now - timedelta(days=1)), made["revoked"].digest)
    directory.put_key(replace(made["expired"].key, expires_at=now - timedelta(days=1)), made["expired"].digest)
    good = made["good"].secret

    def other_at(place: int) -> str:
        letter = chance.choice([c for c in "abcdefghijkmnopqrstuvwxyz" if c != good[place]])
        return good[:place] + letter + good[place + 1 :]

    return {
        BASE: make_secret,
        "first letter wrong": lambda: other_at(6),
        "middle letter wrong": lambda: other_at(len(good) // 2),
        "last letter wrong": lambda: other_at(len(good) - 1),
        "revoked": lambda: made["revoked"].secret,
        "expired": lambda: made["expired"].secret,
    }


def measure(tries: int) -> dict[str, list[int]]:
    """Nanoseconds of each refusal by kind, the middle 80 %."""
    chance, now, directory = random.Random(), datetime.now(UTC), Directory()
    with tempfile.TemporaryDirectory() as folder:
        database = Database(sqlite_url(Path(folder) / "unused.db"))
        authenticator = Authenticator(
            directory=directory, database=database, operator_key_hash=hash_secret(make_secret()), clock=lambda: now
        )
        makers = kinds(chance, directory, now)
        took: dict[str, list[int]] = {name: [] for name in makers}
        order = [name for name in makers for _ in range(tries // len(makers))]
        chance.shuffle(order)
        for name in order:
            headers = [f"Bearer {makers[name]()}".encode()]
            begin = perf_counter_ns()
            with suppress(Unauthenticated):
                authenticator.identify(headers)
            took[name].append(perf_counter_ns() - begin)
        database.close()
    return {name: sorted(times)[len(times) // 10 : -len(times) // 10] for name, times in took.items()}


def compare(took: dict[str, list[int]]) -> bool:
    """Print the means and say whether one differs so much that it could be used."""
    base, leaks = took[BASE], False
    print(f"{'kind':22} {'mean ns':>9} {'difference':>11} {'t':>7}")
    for name, times in took.items():
        difference = fmean(times) - fmean(base)
        error = (variance(times) / len(times) + variance(base) / len(base)) ** 0.5
        t = difference / error
        real = name != BASE and abs(t) > NOISE_T
        leaks |= real and abs(difference) > MATTERS_NS
        word = "beyond noise" if real else ""
        print(f"{name:22} {fmean(times):9.0f} {difference:+11.0f} {t:+7.1f}  {word}")
    print("a client could use this" if leaks else f"no difference that a client could see (under {MATTERS_NS} ns)")
    return leaks


async def _run(tries: int) -> bool:
    return compare(measure(tries))


if __name__ == "__main__":
    sys.exit(asyncio.run(_run(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)))
