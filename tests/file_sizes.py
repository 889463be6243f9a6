"""Fails when a Python file is longer than 500 lines: long before that it has more than one meaning."""

import subprocess
import sys
from pathlib import Path

LIMIT = 500


def main() -> int:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py"], capture_output=True, text=True, check=True
    )
    lengths = {name: len(Path(name).read_text().splitlines()) for name in listed.stdout.split() if Path(name).exists()}
    long = {name: length for name, length in lengths.items() if length > LIMIT}
    for name, length in sorted(long.items()):
        print(f"{name}: {length} lines, the limit is {LIMIT}")
    return 1 if long else 0


if __name__ == "__main__":
    sys.exit(main())
