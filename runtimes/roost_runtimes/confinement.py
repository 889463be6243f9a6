"""What a replica and a checker keep once they have a model to handle: the model's files, Python's own, a bound of memory."""

import os
import sys
import sysconfig
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from roost_runtimes.landlock import Ruleset
from roost_runtimes.limits import Held, limit_replica

_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")


@cache
def python_folders() -> Sequence[Path]:
    """Where Python finds what it loads late: its library, installed packages, this package, and the system's libraries."""
    library = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
    packages = {Path(entry) for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))}
    return (*library, *packages, Path(__file__).parent, *map(Path, _LIBRARIES))


class ReplicaConfinement:
    """Prepared in a spare, ahead of its model, so that little is left to do when one wakes."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """`folders` may be read whatever the model: Python's own."""
        self._ruleset = Ruleset()
        self._ruleset.allow(read=folders)
        self._held = Held.now()

    def close_around(self, path: Path, *, baked: bool, memory_bytes: int) -> bool:
        """Keep the model's file (its folder when it is baked) for reading and `memory_bytes` more of private memory.

        Returns False where the kernel cannot hold the process to its files; the limits hold everywhere.
        """
        limit_replica(self._held, memory_bytes=memory_bytes)
        self._ruleset.allow(read=[path.parent if baked else path])
        return self._ruleset.enforce()


def confine_checker(path: Path, bake_dir: Path | None) -> bool:
    """Keep the upload for reading, its bake folder and the working folder for writing. False = the kernel cannot."""
    ruleset = Ruleset()
    # It weighs itself there. Opened and left so: the kernel may forget, and make anew, an entry of /proc that nobody holds.
    own = Path(f"/proc/self/fd/{os.open('/proc/self/smaps_rollup', os.O_PATH | os.O_CLOEXEC)}")
    ruleset.allow(read=[path, own, *python_folders()], write=[Path.cwd(), *([bake_dir] if bake_dir else [])])
    return ruleset.enforce()
