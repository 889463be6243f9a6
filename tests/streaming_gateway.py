"""A gateway over an ingress as a process of its own, so that its memory can be looked at.

`python streaming_gateway.py FOLDER URL SECRET` prints its port and a key, and runs until its input ends.
"""

import asyncio
import json
import sys
from pathlib import Path

import uvloop

from streaming_parts import streamed_path


async def main(folder: Path, url: str, secret: str) -> None:
    async with streamed_path(folder, url, model="copy", secret=secret, limits={"request_bytes": 80 << 20}) as path:
        print(json.dumps({"port": path.port, "key": path.secret}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        print(json.dumps(path.outcomes()), flush=True)


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
