"""A client that asks for more than it may: at a steady rate, whatever the answers are.

Usage: flood.py PORT PATH KEY BODY_FILE RATE SECONDS. Prints `ready`, begins at a line of standard input, and prints a line
for each status that came: status and how often.
"""

import sys
import time
from collections import Counter
from pathlib import Path

from load import Connection, Target
from models import Body

_CONNECTIONS = 8


def main() -> None:
    port, path, key, file, rate, seconds = sys.argv[1:]
    target = Target(int(port), path, (("Authorization", f"Bearer {key}"),))
    body = Body(Path(file).read_bytes(), Path(file), (("Content-Type", "application/json"),))
    print("ready", flush=True)
    sys.stdin.readline()
    for status, number in flood(target, body, float(rate), float(seconds)).items():
        print(status, number)


def flood(target: Target, body: Body, rate: float, seconds: float) -> Counter[int]:
    """How often each status came."""
    request = target.request(body)
    connections = [Connection(target.port) for _ in range(_CONNECTIONS)]
    statuses: Counter[int] = Counter()
    begin = time.perf_counter()
    for number in range(int(rate * seconds)):
        wait = begin + number / rate - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        connection = connections[number % _CONNECTIONS]
        if number >= _CONNECTIONS:
            statuses[_status(connection)] += 1
        connection.send(request)
        if time.perf_counter() - begin > seconds:
            break
    return statuses


def _status(connection: Connection) -> int:
    while (answer := connection.receive()) is None:
        pass
    return answer[0]


if __name__ == "__main__":
    main()
