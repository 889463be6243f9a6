"""Looks at Ray as the Ray engine would use it: its head where one is named, Serve's proxy, room for a replica. Changes nothing."""

import os
import subprocess
import sys
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from roost_gateway.doctor.judging import Finding, Verdict, judge_room
from roost_gateway.engine_settings import RaySettings
from roost_gateway.engines import ray_settings
from roost_platform.domain.errors import RoostError

_HEAD_S = 30.0
_PROXY_S = 5.0


def examine_ray(settings: RaySettings) -> list[Finding]:
    """Takes some seconds. Raises nothing of what it looks at."""
    try:
        ray_settings(settings, internal_port=0, body_bytes=0)
    except RoostError as error:
        return [Finding("ray", Verdict.FAIL, error.message, "Listen on loopback, or open it knowingly.")]
    findings = [_proxy(settings)]
    if settings.address:
        findings.append(_head(settings.address))
    else:
        cores = settings.cpus or len(os.sched_getaffinity(0))
        findings.append(judge_room(cores=cores, wanted=settings.replica_cpus))
    return findings


def _head(address: str) -> Finding:
    do = f"Start it (ray start --head --port {address.rpartition(':')[2]}), or look at ROOST_RAY_ADDRESS."
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_HEAD_S, check=False)  # noqa: S603 - no shell
    except subprocess.TimeoutExpired:
        return Finding("ray", Verdict.FAIL, f"the head at {address} does not answer in {_HEAD_S:.0f} s", do)
    if done.returncode:
        return Finding("ray", Verdict.FAIL, f"there is no healthy head at {address}", do)
    return Finding("ray", Verdict.OK, f"the head at {address} answers")


def _proxy(settings: RaySettings) -> Finding:
    where = f"{settings.http_host}:{settings.http_port}"
    do = "Name another port with ROOST_RAY_HTTP_PORT, or end what listens there."
    try:
        with urlopen(f"http://{where}/-/healthz", timeout=_PROXY_S) as answer:
            said = answer.read(100)
    except HTTPError as error:
        if error.code == 503:
            return Finding("ray", Verdict.WARN, f"Serve's proxy at {where} is not ready", "Look again in a minute.")
        return Finding("ray", Verdict.FAIL, f"what listens at {where} is not Serve's proxy", do)
    except (URLError, OSError, ValueError):
        return Finding("ray", Verdict.OK, f"nobody listens at {where} yet: `roost serve` starts Serve's proxy there")
    if said.strip() != b"success":
        return Finding("ray", Verdict.FAIL, f"what listens at {where} is not Serve's proxy", do)
    return Finding("ray", Verdict.OK, f"Serve's proxy answers at {where}")
