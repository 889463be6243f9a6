"""The process that sets a PDF: a job on its input, the file on its output. Knows nothing of Roost, so that it starts fast.

The job is JSON: `template`, Typst's markup, and `sheet`, JSON in a string, which the template reads as data. What goes
wrong is told on stderr, with an exit status other than 0.
"""

import json
import resource
import sys

import typst

_MEMORY_BYTES = 4 * 1024**3
"""Of address space: several times what the longest statement takes."""
_CPU_S = 60


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    job = json.load(sys.stdin)
    compiler = typst.Compiler(
        job["template"].encode(),
        ignore_system_fonts=True,  # the same letters on every machine
        sys_inputs={"sheet": job["sheet"]},
    )
    made = compiler.compile(format="pdf")
    if not isinstance(made, bytes):
        raise TypeError("a PDF is one piece")
    sys.stdout.buffer.write(made)


if __name__ == "__main__":
    main()
