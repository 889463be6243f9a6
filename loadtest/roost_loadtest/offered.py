"""`python -m roost_loadtest.offered SHAPE [--duration 60s]`: the requests a second of a load shape, as JSON.

For programs that think about a load and do not send it. Exit status 2 with a sentence when it is no shape.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from itertools import pairwise

from roost_loadtest import shape_text
from roost_loadtest.shapes import Shape

LONGEST_S = 7 * 24 * 3600


def by_second(shape: Shape) -> list[float]:
    """Requests due in each second, on average."""
    edges = [shape.due_by(second) for second in range(math.ceil(shape.duration_s) + 1)]
    return [round(b - a, 6) for a, b in pairwise(edges)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m roost_loadtest.offered")
    parser.add_argument("shape")
    parser.add_argument("--duration", default="60s", help="of shapes without a length [60s]")
    chosen = parser.parse_args(arguments)
    try:
        shape = shape_text.shape(chosen.shape, duration_s=shape_text.seconds(chosen.duration))
        if shape.duration_s > LONGEST_S:
            raise ValueError("a load shape lasts for a week at most")
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(json.dumps(by_second(shape)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
