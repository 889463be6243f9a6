"""Looks at store, database, engine (with its cluster), clock and limits of an installation, as the settings of `roost serve` name them.

Works beside a running server. Makes no folder and no file of its own and migrates nothing (SQLite makes its `-shm` file
anew when nobody has the database open).
"""

import ctypes
import os
import resource
import time
from importlib.util import find_spec

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from roost_gateway.doctor.judging import (
    Finding,
    Verdict,
    judge_landlock,
    judge_memory,
    judge_mode,
    judge_open_files,
    judge_skew,
    judge_space,
    judge_synchronized,
)
from roost_gateway.settings import Settings
from roost_platform.database.connection import Database, sqlite_url
from roost_platform.database.migrations import check_integrity, require_tables
from roost_platform.domain.errors import RoostError
from roost_platform.engines.local.budget import machine_capacity
from roost_platform.registry.stores import make_store

_LIBRARIES = {
    "local": ("roost[local]", ("onnxruntime", "onnx", "numpy")),
    "knative": ("roost[knative]", ("kubernetes", "aiohttp")),
    "ray": ("roost[ray]", ("ray", "aiohttp")),
}
_STATUS_AT, _STA_UNSYNC = 40, 0x40  # of struct timex on 64-bit Linux: <linux/timex.h>
_LANDLOCK_CREATE_RULESET, _LANDLOCK_VERSION = 444, 1  # <linux/landlock.h>; the number is the same on all architectures


def examine(settings: Settings) -> list[Finding]:
    """Everything that can be looked at from here; may take some seconds. Raises nothing of what it looks at."""
    return [
        *_exposure(settings),
        *_store(settings),
        *_database(settings),
        *_engine(settings),
        judge_synchronized(_synchronized()),
        judge_open_files(*resource.getrlimit(resource.RLIMIT_NOFILE)),
    ]


def _exposure(settings: Settings) -> list[Finding]:
    try:
        settings.check_exposure()
    except RoostError as error:
        return [Finding("limits", Verdict.FAIL, error.message, "Set ROOST_OPERATOR_KEY, or listen on 127.0.0.1.")]
    return []


def _store(settings: Settings) -> list[Finding]:
    folder = settings.data
    if not folder.is_dir():
        return [Finding("store", Verdict.OK, "no data folder yet: `roost serve` makes it")]
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        do = "Run as the user that owns the data folder, or name another one with ROOST_DATA."
        return [Finding("store", Verdict.FAIL, "the data folder cannot be written", do)]
    disk = os.statvfs(folder)
    findings = [
        judge_space(disk.f_bavail * disk.f_frsize, upload_bytes=settings.limits.upload_bytes),
        judge_mode(folder.stat().st_mode),
    ]
    if settings.artifacts.url is not None:
        findings.append(_bucket(settings))
    return findings


def _bucket(settings: Settings) -> Finding:
    """Ask for an artifact that nobody has: that it is missing is the answer of a bucket that is well."""
    do = "Look at ROOST_ARTIFACTS_URL, ROOST_ARTIFACTS_ENDPOINT_URL and the credentials in the environment."
    chosen = settings.artifacts
    try:
        store = make_store(settings.data, url=chosen.url, endpoint_url=chosen.endpoint_url, region=chosen.region)
        store.open("0" * 64).close()
    except RoostError as error:
        if error.code != "artifact_missing":
            return Finding("store", Verdict.FAIL, error.message, do)
    return Finding("store", Verdict.OK, "the bucket answers")


def _database(settings: Settings) -> list[Finding]:
    file = settings.data / "roost.db"
    if settings.database_url is None and not file.is_file():
        return [Finding("database", Verdict.OK, "no database yet: `roost serve` makes it")]
    do = "Look at ROOST_DATABASE_URL, whether its driver is installed and whether the server is up."
    try:
        database = Database(settings.database_url or sqlite_url(file))
        try:
            return _look_at(database)
        finally:
            database.close()
    except SQLAlchemyError:  # its words may hold the URL's password
        return [Finding("database", Verdict.FAIL, "the database does not answer", do)]
    except RoostError as error:
        return [Finding("database", Verdict.FAIL, error.message, do)]


def _look_at(database: Database) -> list[Finding]:
    try:
        check_integrity(database.engine)
    except RoostError as error:
        return [
            Finding(
                "database", Verdict.FAIL, error.message, "Stop the server and restore a backup (docs/operations.md)."
            )
        ]
    findings = [_tables(database)]
    if database.shared:
        findings.append(_skew(database))
    return findings


def _tables(database: Database) -> Finding:
    try:
        current = require_tables(database.engine)
    except RoostError as error:
        if error.code == "database_not_migrated":
            if not database.shared:
                return Finding("database", Verdict.OK, "of an earlier release: `roost serve` migrates it at its start")
            return Finding("database", Verdict.FAIL, error.message, "Run: roost migrate")
        return Finding("database", Verdict.FAIL, error.message, "Install the release that wrote it, or a newer one.")
    if not current:
        return Finding("database", Verdict.WARN, "a newer release has migrated it", "Update this gateway soon.")
    return Finding("database", Verdict.OK, "has the tables of this release")


def _skew(database: Database) -> Finding:
    with database.engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        before = time.time()
        theirs = float(connection.scalar(text("SELECT extract(epoch FROM clock_timestamp())")))
        after = time.time()
    return judge_skew((before + after) / 2 - theirs, uncertain_s=(after - before) / 2)


def _engine(settings: Settings) -> list[Finding]:
    extra, libraries = _LIBRARIES[settings.engine]
    absent = [name for name in libraries if find_spec(name) is None]
    if absent:
        says = f"engine {settings.engine} needs {', '.join(absent)}"
        return [Finding("engine", Verdict.FAIL, says, f"Run: pip install '{extra}'")]
    findings = [Finding("engine", Verdict.OK, f"{settings.engine}: its libraries are there")]
    if settings.engine == "knative":
        from roost_gateway.doctor.cluster import examine_cluster  # noqa: PLC0415 - its libraries are an extra

        findings += examine_cluster(settings.knative)
    if settings.engine == "ray":
        from roost_gateway.doctor.on_ray import examine_ray  # noqa: PLC0415 - likewise

        findings += examine_ray(settings.ray)
    if settings.engine == "local":
        local = settings.local
        memory = local.memory_bytes or machine_capacity(memory_share=local.memory_share).memory_bytes
        findings += [judge_landlock(_landlock()), judge_memory(memory)]
    return findings


def _landlock() -> int:
    return max(0, int(ctypes.CDLL(None).syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION)))


def _synchronized() -> bool | None:
    """What the kernel was told by an NTP client; None where it may not be asked."""
    timex = ctypes.create_string_buffer(256)  # zeros: nothing is set, only read
    if ctypes.sizeof(ctypes.c_long) != 8 or ctypes.CDLL(None).adjtimex(timex) < 0:
        return None
    return not int.from_bytes(timex.raw[_STATUS_AT : _STATUS_AT + 4], "little") & _STA_UNSYNC
