"""A real `roost serve` as a child, with a data folder of its own, one tenant and its key."""

import secrets
import sys
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path

from contenders import Contender
from load import Target
from models import Model
from processes import free_port, wait_until

from roost_gateway.client import RoostClient, ServerNotThere

TENANT = "bench"
WINDOW_S = 6
"""The shortest stable window there is: a model without calls sleeps some ten seconds later."""

_START_S = 60.0
_SLEEP_S = 90.0
_QUOTA = {"models": 5_000, "storage_bytes": 0, "concurrent_requests": 0, "requests_per_second": 1_000_000}
"""Out of the way, but there: the rate is set so that admission does all of its work on each call."""


class Roost(Contender):
    """Started and ready. The tenant is made on a fresh data folder; its key is kept beside it for a later start."""

    def __init__(self, data: Path, work: Path, settings: dict[str, str] | None = None) -> None:
        port = free_port()
        data.mkdir(parents=True, exist_ok=True)
        operator_key = f"roost_{secrets.token_hex(32)}"
        environment = {"ROOST_OPERATOR_KEY": operator_key} | (settings or {})
        super().__init__(self._command(port, data), port=port, log=work / "roost.log", environment=environment)
        self.url = f"http://127.0.0.1:{port}"
        try:
            self.ready_ms = self._wait_until_ready()
            self.key = self._tenant_key(operator_key, data / "bench.key")
        except BaseException:
            self.stop()
            raise
        self.client = RoostClient(self.url, self.key)

    def _command(self, port: int, data: Path) -> list[str]:
        return [sys.executable, "-m", "roost_gateway", "serve", "--port", str(port), "--data", str(data)]

    def target(self, model: str) -> Target:
        return Target(self.port, f"/t/{TENANT}/v2/models/{model}/infer", (("Authorization", f"Bearer {self.key}"),))

    def deploy(self, model: Model, names: Iterable[str], **options: int) -> None:
        """Upload the same file under each name; `options` in Knative's spelling, with underscores."""
        chosen = {name.replace("_", "-"): value for name, value in options.items()}
        for name in names:
            self.client.upload(name, model.file, options=chosen)

    def wait_until_asleep(self, names: Iterable[str]) -> None:
        """Until none of these has a replica or a process on its way out."""
        waiting = set(names)

        def asleep() -> bool:
            for model in self.client.models()["models"]:
                if model["state"] == "failed":
                    raise RuntimeError(f"{model['model']} failed; see {self.tree.log}")
                if model["state"] == "asleep" and not model["replicas_ready"]:
                    waiting.discard(model["model"])
            return not waiting

        if not asleep():
            wait_until(asleep, limit_s=_SLEEP_S, what="sleep", every_s=0.3)
            time.sleep(0.7)  # the last processes end, and spares are made again

    def cold_starts(self) -> tuple[float, float]:
        """How many calls found their model asleep since the start, and the seconds they waited for a replica in all."""
        with urllib.request.urlopen(f"{self.url}/metrics") as page:
            lines = dict(line.rsplit(" ", 1) for line in page.read().decode().splitlines() if line[0] != "#")
        return tuple(float(lines[f"roost_cold_start_duration_seconds_{part}"]) for part in ("count", "sum"))

    def metered(self) -> int:
        """Calls in the ledger, all of them: it is read until it no longer grows."""
        last = -1
        while (now := int(self.client.usage()["total"]["requests"])) != last:
            last = now
            time.sleep(1.5)  # longer than the shipper's interval
        return last

    def stop(self) -> None:
        if client := getattr(self, "client", None):
            client.close()
        super().stop()

    def _wait_until_ready(self) -> float:
        def ready() -> bool:
            if not self.tree.alive:
                raise RuntimeError(f"Roost ended; see {self.tree.log}")
            try:
                return client.ready()
            except ServerNotThere:
                return False

        with RoostClient(self.url) as client:
            wait_until(ready, limit_s=_START_S, what="Roost ready", every_s=0.02)
        return (time.perf_counter() - self.tree.started) * 1e3

    def _tenant_key(self, operator_key: str, file: Path) -> str:
        if not file.exists():
            with RoostClient(self.url, operator_key) as operator:
                file.write_text(operator.create_tenant(TENANT, _QUOTA)["key"]["secret"])
        return file.read_text()
