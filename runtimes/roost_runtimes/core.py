"""The serving core: every door (HTTP, the framed link) hands it requests and gets answers by callback.

    submit: find the route, check the secret, decode ─▶ queue        pump: run what is queued ─▶ done(answer)

Callbacks rather than coroutines, because a task per request would cost more than a small model's run. `done` is called
exactly once per submitted request, on the event loop's thread: before `submit` returns for what needs no run (errors,
health, metadata), else from a later `pump`. A cancelled request is answered too: with status 499,
or as usual when that came too late.
"""

import hmac
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter_ns

from roost_runtimes.activity import STRETCH_US
from roost_runtimes.batching import batch_key
from roost_runtimes.codec import Call, InferCodec
from roost_runtimes.content import check_type, decompress, too_large
from roost_runtimes.errors import RequestError
from roost_runtimes.execution import Done, Execution, Ticket, failure_answer
from roost_runtimes.figures import Figures
from roost_runtimes.messages import TIMES_HEADER, Answer, Request, json_answer
from roost_runtimes.model import Model, ModelError
from roost_runtimes.pace import Pace
from roost_runtimes.routes import OPEN, Action, Routes
from roost_runtimes.v1 import PredictCodec

__all__ = ["Answer", "Core", "Limits", "Request", "Ticket"]

SECRET_HEADER = "roost-service-secret"  # noqa: S105 - a header's name
SINCE_HEADER = "roost-since"
_NUMBER = re.compile(r"[0-9]{1,12}")

_WARM_UP_RUNS = 4
_REPEAT_BELOW_US = 5_000
"""A first run that takes this long or longer says enough: it is far from what may run on the event loop."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one replica takes."""

    body_bytes: int = 256 * 1024 * 1024
    """Of a request, also after decompression."""
    queued_requests: int = 10_000
    """Waiting for a slot; one more is answered 503."""


class Core:
    """Serves one model. All methods belong to the event loop's thread."""

    def __init__(
        self,
        model: Model,
        *,
        slots: int = 1,
        max_batch_size: int = 1,
        run_us: int | None = None,
        secret: str | None = None,
        limits: Limits | None = None,
        fetch_us: int = 0,
    ) -> None:
        """`slots`: the most runs at once. `max_batch_size`: the most rows in one run, 1 = no batching. `run_us`: what a
        run takes, if known from before; `warm_up` then runs nothing. `secret`: what every request but probes must carry.
        `fetch_us`: microseconds that the file was waited for.
        """
        self.draining = False
        self.figures = Figures()
        self._model = model
        self._run_us = run_us
        self._secret = None if secret is None else secret.encode()
        self._limits = limits or Limits()
        self._routes = Routes(model.name, model.version)
        self._infer = InferCodec(model)
        self._predict = PredictCodec(model)
        self._ready = False
        self._ready_us = 0
        self._fetch_us = fetch_us
        self._execution = Execution(
            model, slots=slots, max_batch_size=max_batch_size, pace=Pace(run_us), figures=self.figures
        )
        self._plain: dict[Action, Callable[[], Answer]] = {
            Action.LIVE: lambda: json_answer({"live": True}),
            Action.READY: lambda: json_answer({"ready": self.ready}, 200 if self.ready else 503),
            Action.SERVER: _server_metadata,
            Action.MODEL: self._model_metadata,
            Action.MODEL_READY: self._model_ready,
            Action.V1_MODEL: self._model_ready,
            Action.V1_MODELS: lambda: json_answer({"models": [model.name]}),
            Action.METRICS: self._metrics,
        }

    @property
    def ready(self) -> bool:
        """Warmed up and not draining."""
        return self._ready and not self.draining

    @property
    def inflight(self) -> int:
        """Infer requests submitted and not answered."""
        return self._execution.inflight

    @property
    def busy_us(self) -> int:
        """Microseconds the model has run so far."""
        return self.figures.busy_us

    @property
    def run_us(self) -> int:
        """What a run takes, in microseconds; 0 = not known yet."""
        return self._execution.pace.run_us

    def warm_up(self) -> None:
        """Run the model once, a tiny one a few times, to learn what a run takes; then it is ready.

        A model may refuse inputs of zeros; its time is then learnt from the first requests.
        """
        if self._run_us is None:
            best = self._time_runs()
            if best is not None:
                self._execution.pace = Pace(best)
        self._ready = True
        self._ready_us = self._execution.activity.utc_us(perf_counter_ns())

    def _time_runs(self) -> int | None:
        best = None
        for _ in range(_WARM_UP_RUNS):
            begin = perf_counter_ns()
            try:
                self._model.warm_up()
            except ModelError:
                return None
            spent = max(1, (perf_counter_ns() - begin) // 1000)
            best = spent if best is None else min(best, spent)
            if spent > _REPEAT_BELOW_US:
                break
        return best

    def submit(self, request: Request, done: Done) -> Ticket | None:
        """Take one request; infer requests are queued for the next `pump`. None = it was answered already."""
        born_ns = perf_counter_ns()
        infer = False
        try:
            action = self._routes.find(request.method, request.path)
            infer = action is Action.INFER or action is Action.PREDICT
            if self._secret is not None and (infer or action not in OPEN):
                self._check_secret(request)
            if infer:
                call = self._decode(action, request)
                if self._execution.queued >= self._limits.queued_requests:
                    raise _queue_full()
                answer = None
            else:
                answer = self._plain[action]() if action is not Action.ACTIVITY else self._activity(request)
        except Exception as error:  # noqa: BLE001 - one request must not bring down the door it came through
            answer = failure_answer(error)
        if answer is not None:
            if infer:
                self.figures.count_answer(answer.status)
            done(answer)
            return None
        headers = request.headers
        ticket = Ticket(
            call,
            done,
            size=len(request.body),
            accept=headers.get("accept-encoding"),
            born_ns=born_ns,
            decode_us=(perf_counter_ns() - born_ns) // 1000 if TIMES_HEADER in headers else None,
        )
        self._execution.put(ticket)
        return ticket

    def pump(self) -> None:
        """Run what was submitted, as far as slots go. Doors call it once they have handed over all they have read."""
        self._execution.pump()

    def cancel(self, ticket: Ticket) -> None:
        """Nobody waits for this one: drop it, or end its run early. `done` is still called."""
        self._execution.cancel(ticket)

    def close(self) -> None:
        """Cancel everything and let go of the model."""
        self._ready = False
        self._execution.close()
        self._model.close()

    def _check_secret(self, request: Request) -> None:
        assert self._secret is not None
        given = request.headers.get(SECRET_HEADER, "").encode("utf-8", "replace")
        if not hmac.compare_digest(given, self._secret):
            raise RequestError("the service's secret is missing or wrong", status=401, code="unauthenticated")

    def _decode(self, action: Action, request: Request) -> Call:
        headers, body, limit = request.headers, request.body, self._limits.body_bytes
        if len(body) > limit:
            raise too_large(limit)
        check_type(headers.get("content-type"))
        encoding = headers.get("content-encoding")
        if encoding is not None:
            body = decompress(body, encoding, limit)
        if action is Action.INFER:
            call = self._infer.decode(body, headers.get("inference-header-content-length"))
        else:
            call = self._predict.decode(body)
        if self._execution.batches:
            call.batch_key = batch_key(call)
        return call

    def _model_metadata(self) -> Answer:
        model = self._model
        return json_answer(
            {
                "name": model.name,
                "versions": [model.version],
                "platform": model.platform,
                "inputs": [spec.to_json() for spec in model.inputs],
                "outputs": [spec.to_json() for spec in model.outputs],
            }
        )

    def _model_ready(self) -> Answer:
        return json_answer({"name": self._model.name, "ready": self.ready}, 200 if self.ready else 503)

    def _activity(self, request: Request) -> Answer:
        """When there were requests, for whoever meters it: a header names the first stretch that is asked for."""
        activity = self._execution.activity
        now_ns = perf_counter_ns()
        since = request.headers.get(SINCE_HEADER, "")
        past = activity.look(now_ns, first=int(since) if _NUMBER.fullmatch(since) else 0)
        return json_answer(
            {
                "replica": os.environ.get("HOSTNAME", ""),
                "now_us": activity.utc_us(now_ns),
                "ready_us": self._ready_us,
                "fetch_us": self._fetch_us,
                "busy_us": activity.total_us,
                "stretch_us": STRETCH_US,
                "first": past.first,
                "stretches": past.busy_us,
                "current_us": past.current_us,
            }
        )

    def _metrics(self) -> Answer:
        # Only this page needs the Prometheus client; replicas that are never scraped stay smaller without it.
        from roost_runtimes.metrics import metrics_page  # noqa: PLC0415

        page = metrics_page(
            self.figures, model=self._model.name, version=self._model.version, inflight=self._execution.inflight
        )
        return Answer(200, (("content-type", "text/plain; version=0.0.4; charset=utf-8"),), [page])


def _server_metadata() -> Answer:
    try:
        release = version("roost")
    except PackageNotFoundError:
        release = "unknown"
    return json_answer({"name": "roost", "version": release, "extensions": ["binary_tensor_data"]})


def _queue_full() -> RequestError:
    return RequestError(
        "too many requests are waiting; try again later",
        status=503,
        code="queue_full",
        headers=(("retry-after", "1"),),
    )
