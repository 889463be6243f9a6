"""The options of `python -m roost_loadtest run`, and the plan that they make."""

import argparse
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from roost_loadtest import api, shape_text
from roost_loadtest.arrivals import Process
from roost_loadtest.payloads import Payload, from_file, generated
from roost_loadtest.record import Aims, Plan, Stream, Target

_T = TypeVar("_T")
_AIMS, _PLAN = Aims(), Plan("", ())
_TARGET = re.compile(r"(?:(?P<tenant>[a-z0-9-]+)/)?(?P<model>[A-Za-z0-9._-]+)(?:@(?P<version>[0-9]+))?")


@dataclass(frozen=True)
class Order:
    """What is to be run, and how: the plan is what the record keeps of it."""

    plan: Plan
    payloads: tuple[Payload, ...]
    """One per stream."""
    out: Path
    workers: int = 0
    """On other machines, which connect to `bind`."""
    bind: str = ""
    web_port: int | None = None
    kubeconfig: Path | None = None


def add_to(parser: argparse.ArgumentParser) -> None:
    """No option holds a secret: keys are in ROOST_API_KEY and, for further tenants, ROOST_API_KEY_TENANT."""
    add = parser.add_argument
    add("target", metavar="[TENANT/]MODEL[@VERSION]", help="what is asked")
    add("--url", default=os.environ.get("ROOST_URL", ""), help="the server [ROOST_URL]")
    add("--qps", type=float, help="requests a second; not needed beside a shape that says so")
    add(
        "--duration",
        type=_of(shape_text.seconds),
        default=60.0,
        metavar="TIME",
        help="of shapes without a length [60s]",
    )
    add("--shape", default="", help="steps:…, ramp:…, spike:…, diurnal:…, trace:FILE")
    add("--process", type=_of(shape_text.process), default=(Process.POISSON, 1.0), help="poisson, constant, gamma:1.5")
    add("--seed", type=int, default=0, help="of arrivals and payloads: the same seed makes the same run")
    add("--payload", type=Path, metavar="FILE", help="a request in JSON, or one a line (.jsonl)")
    add("--binary", action="store_true", help="binary tensors instead of JSON")
    add("--batch", type=int, default=1, help="length of dimensions of any length")
    add("--also", action="append", default=[], metavar="[TENANT/]MODEL=QPS|SHAPE", help="a further stream; repeatable")
    for name in ("p50", "p95", "p99"):
        add(f"--{name}", type=_of(shape_text.seconds), metavar="TIME", help="aim, from when a request was due")
    add("--errors", type=float, default=_AIMS.errors, help="largest share of requests that may fail")
    add("--achieved", type=float, default=_AIMS.achieved, help="least share that must be answered")
    add("--capacity-within", type=_of(shape_text.seconds), metavar="TIME", help="aim: time to capacity after a step")
    add("--settle", type=_of(shape_text.seconds), default=_AIMS.settle_s, metavar="TIME", help="left out after a step")
    add("--back-to-zero", action="store_true", help="wait for it after the run, and judge it")
    add("--no-billing", action="store_true", help="do not compare with the platform's usage")
    add("--timeout", type=_of(shape_text.seconds), default=_PLAN.timeout_s, metavar="TIME", help="of a request")
    add("--connections", type=int, default=_PLAN.connections, help="in flight at once, per process")
    add("--processes", type=int, default=1, help="on this machine")
    add("--workers", type=int, default=0, help="further processes, which connect to --bind")
    add("--bind", default="", metavar="HOST:PORT", help="where workers of other machines connect")
    add("--web-ui", type=int, nargs="?", const=8089, metavar="PORT", help="Locust's own web page meanwhile")
    add("--kubeconfig", type=Path, metavar="FILE", help="watch Knative's objects as well")
    add("--out", type=Path, required=True, metavar="DIR", help="where record.json goes")


def order_of(options: argparse.Namespace, environment: Mapping[str, str]) -> Order:
    """Asks the server what it must know. Raises ValueError, OSError, NotThere, SaidNo."""
    wanted = [(options.target, options.shape or options.qps)]
    for also in options.also:
        name, equals, rest = also.partition("=")
        if not equals:
            raise ValueError(f"{also!r} is no further stream such as acme/iris=20")
        wanted.append((name, rest))
    if wanted[0][1] is None:
        raise ValueError("say how many requests: --qps 100, or --shape")
    if options.processes < 1 or options.workers < 0:
        raise ValueError("a run needs one process or more")
    if options.workers and not options.bind:
        raise ValueError("workers of other machines need --bind HOST:PORT to connect to")
    streams, payloads, duration = [], [], options.duration
    for index, (name, load) in enumerate(wanted):
        shape = shape_text.shape(str(load), duration_s=duration)
        if not shape.requests:
            raise ValueError(f"{name}: a load of no requests")
        duration = shape.duration_s if index == 0 else duration  # what runs beside the first lasts as long
        target = _target(name, options.url, environment)
        process, burstiness = options.process
        # Streams that share a seed would come in lockstep.
        seed = options.seed + index
        payload = _payload(options, target, seed, environment)
        streams.append(Stream(target, shape, process, burstiness, seed, payload.source))
        payloads.append(payload)
    aims = Aims(
        p50_s=options.p50,
        p95_s=options.p95,
        p99_s=options.p99,
        errors=options.errors,
        achieved=options.achieved,
        capacity_within_s=options.capacity_within,
        settle_s=options.settle,
        back_to_zero=options.back_to_zero,
        billed=not options.no_billing,
    )
    plan = Plan(
        url=options.url,
        streams=tuple(streams),
        aims=aims,
        timeout_s=options.timeout,
        connections=options.connections,
        processes=options.processes + options.workers,
        payload_file=options.payload.name if options.payload else "",
        binary=options.binary,
        batch=options.batch,
    )
    return Order(plan, tuple(payloads), options.out, options.workers, options.bind, options.web_ui, options.kubeconfig)


def _target(name: str, url: str, environment: Mapping[str, str]) -> Target:
    found = _TARGET.fullmatch(name)
    if found is None:
        raise ValueError(f"{name!r} is no model such as iris, acme/iris or iris@3")
    tenant = found["tenant"] or api.tenant_of(url, found["model"], api.key_for("", environment))
    return Target(tenant, found["model"], int(found["version"]) if found["version"] else None)


def _payload(options: argparse.Namespace, target: Target, seed: int, environment: Mapping[str, str]) -> Payload:
    if options.payload is not None:
        return from_file(options.payload)
    inputs = api.inputs_of(options.url, target, api.key_for(target.tenant, environment))
    return generated(inputs, seed=seed, binary=options.binary, batch=options.batch)


def _of(parse: Callable[[str], _T]) -> Callable[[str], _T]:
    """As argparse wants it: what the parser says against a text is what the user reads."""

    def read(text: str) -> _T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read
