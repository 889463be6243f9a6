"""A node: schedules pods onto itself, runs their user container as a real process, and keeps their status."""

import asyncio
import base64
import shutil
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from fake_knative.container import Container, Spawn, base_environment
from fake_knative.pods import QUEUE, probe_path
from fake_kubernetes import FakeKubernetes
from fake_kubernetes.quantities import of_pod, quantity
from fake_kubernetes.registry import now

Object = dict[str, Any]
_LOG_TAIL = 2048
_BACKOFF_S = 10.0
_PULL_BACKOFF = 'Back-off pulling image "{image}": ErrImagePull: {image}: not found'


class RunningPod:
    """What the node knows of one pod beside the API's object."""

    def __init__(self, name: str, namespace: str, folder: Path) -> None:
        self.name, self.namespace, self.folder = name, namespace, folder
        self.container: Container | None = None
        self.restarts = 0
        self.last: Object | None = None
        """How the container ended the last time."""
        self.last_lines: list[str] = []
        self.started_at = ""
        self.waiting: tuple[str, str] = ("ContainerCreating", "")
        self.in_flight = 0
        """Requests that queue-proxy has let in."""
        self.idle = asyncio.Event()
        self.idle.set()
        self.ending: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        return self.container is not None and self.container.ready and self.ending is None

    @property
    def pid(self) -> int | None:
        return self.container.pid if self.container is not None else None

    @property
    def url(self) -> str:
        assert self.container is not None
        return f"http://127.0.0.1:{self.container.port}"


class Kubelet:
    """One node of so many cpus. `commands`: what the image of a name runs; other images cannot be pulled."""

    def __init__(
        self,
        api: FakeKubernetes,
        *,
        commands: Mapping[str, Sequence[str]],
        cpus: str,
        memory: str,
        drain_s: float,
        changed: Callable[[], None],
        spawn: Spawn,
    ) -> None:
        self._api, self.commands, self._drain_s, self._changed, self._spawn = api, commands, drain_s, changed, spawn
        self._room = {"cpu": quantity(cpus), "memory": quantity(memory)}
        self._folder = Path(tempfile.mkdtemp(prefix="fake-node-"))
        self.pods: dict[tuple[str, str], RunningPod] = {}
        self._containers: list[Container] = []
        api.log_of = self._log
        api.life_of = self._life

    async def stop(self) -> None:
        for pod in list(self.pods.values()):
            if pod.ending is not None:
                pod.ending.cancel()
        for container in self._containers:
            await container.end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def reconcile(self) -> None:
        """Take in new pods, end deleted ones, restart what ended, and write what is true now."""
        found = {(pod["metadata"]["namespace"], pod["metadata"]["name"]): pod for pod in self._api.objects("Pod")}
        for key in set(self.pods) - set(found):  # deleted with no grace, under our feet
            pod = self.pods.pop(key)
            if pod.container is not None:
                pod.container.signal(signal.SIGKILL)
        for key, thing in found.items():
            if not thing["spec"].get("nodeName") and not self._schedule(thing):
                continue
            pod = self.pods.get(key) or self._begin(key)
            if "deletionTimestamp" in thing["metadata"]:
                if pod.ending is None:
                    pod.ending = asyncio.create_task(self._end(pod, thing))
            else:
                self._advance(pod, thing)
            self._write(pod, thing)

    def _begin(self, key: tuple[str, str]) -> RunningPod:
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        pod = self.pods[key] = RunningPod(key[1], key[0], folder)
        return pod

    def _schedule(self, thing: Object) -> bool:
        meta = thing["metadata"]
        here = [of_pod(pod) for pod in self._api.objects("Pod") if pod["spec"].get("nodeName")]
        short = [
            f"Insufficient {name}"
            for name, room in self._room.items()
            if sum((pod.get(f"requests.{name}", Decimal(0)) for pod in [*here, of_pod(thing)]), Decimal(0)) > room
        ]
        if thing["spec"].get("nodeSelector"):
            short = ["node(s) didn't match Pod's node affinity/selector"]
        if short:
            why = ", 1 ".join(short)
            message = (
                f"0/1 nodes are available: 1 {why}. preemption: 0/1 nodes are available: 1 No preemption victims found."
            )
            entry = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
            status = {"phase": "Pending", "conditions": _since([entry], thing.get("status", {}))}
            self._api.set_status("Pod", meta["name"], meta["namespace"], status)
            return False

        def bind(pod: Object) -> None:
            pod["spec"]["nodeName"] = "node-1"

        self._api.edit("Pod", meta["name"], meta["namespace"], bind, manager="scheduler")
        return True

    def _advance(self, pod: RunningPod, thing: Object) -> None:
        container = thing["spec"]["containers"][0]
        if pod.container is None:
            if pod.waiting[0] != "CrashLoopBackOff":
                self._start(pod, thing, container)
        elif pod.container.exit_code is not None:
            self._ended(pod, container)

    def _start(self, pod: RunningPod, thing: Object, container: Object) -> None:
        image = container["image"]
        argv = self.commands.get(image)
        if argv is None:
            pod.waiting = ("ImagePullBackOff", _PULL_BACKOFF.format(image=image))
            return
        env, missing = self._environment(thing, container, pod.folder)
        if missing:
            pod.waiting = ("CreateContainerConfigError", missing)
            return
        pod.container = Container(
            argv=argv,
            env=env,
            log=pod.folder / f"log-{pod.restarts}",
            probe=probe_path(thing),
            changed=self._changed,
            spawn=self._spawn,
        )
        self._containers.append(pod.container)

    def _environment(self, thing: Object, container: Object, folder: Path) -> tuple[dict[str, str], str]:
        """The container's variables, and what is missing for them. Mounted folders lie elsewhere than in an image, so
        a variable that names one names the real one.
        """
        namespace = thing["metadata"]["namespace"]
        mounts = {}
        for mount in container.get("volumeMounts", ()):
            mounts[mount["mountPath"]] = str(folder / mount["name"])
            (folder / mount["name"]).mkdir(exist_ok=True)
        env = {
            **base_environment(),
            "HOSTNAME": thing["metadata"]["name"][:63],
            "TMPDIR": mounts.get("/tmp", str(folder)),
        }
        for variable in container.get("env", ()):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if reference is None:
                value = variable.get("value", "")
                env[variable["name"]] = mounts.get(value, value)
                continue
            secret = self._api.get("Secret", reference["name"], namespace)
            if secret is None:
                return env, f'secret "{reference["name"]}" not found'
            if reference["key"] not in secret.get("data", {}):
                return env, f"couldn't find key {reference['key']} in Secret {namespace}/{reference['name']}"
            env[variable["name"]] = base64.b64decode(secret["data"][reference["key"]]).decode()
        return env, ""

    def _ended(self, pod: RunningPod, container: Object) -> None:
        """The first restart comes at once, the later ones ever later."""
        assert pod.container is not None
        pod.last_lines = pod.container.lines()
        code = pod.container.exit_code
        text = "\n".join(pod.last_lines)[-_LOG_TAIL:] if code and _tells(container) else ""
        pod.last = {
            "exitCode": code,
            "reason": "Error" if code else "Completed",
            "finishedAt": now(),
            "startedAt": pod.started_at or now(),
        }
        pod.last |= {"message": text} if text else {}
        pod.container = None
        pod.restarts += 1
        if pod.restarts == 1:
            pod.waiting = ("ContainerCreating", "")
            self._changed()
            return
        delay = min(300.0, _BACKOFF_S * 2 ** (pod.restarts - 2))
        words = f"back-off {delay:.0f}s restarting failed container={container['name']} pod={pod.name}"
        pod.waiting = ("CrashLoopBackOff", words)
        asyncio.get_running_loop().call_later(delay, self._try_again, pod)

    def _try_again(self, pod: RunningPod) -> None:
        pod.waiting = ("ContainerCreating", "")
        self._changed()

    async def _end(self, pod: RunningPod, thing: Object) -> None:
        """Drain as queue-proxy does, then SIGTERM, then SIGKILL when the grace is over; then the object goes."""
        grace = float(thing["metadata"].get("deletionGracePeriodSeconds", 30))
        try:
            async with asyncio.timeout(grace):
                await asyncio.sleep(self._drain_s)
                await pod.idle.wait()
                if pod.container is not None:
                    pod.container.signal(signal.SIGTERM)
                    await pod.container.ended.wait()
        except TimeoutError:
            pass
        if pod.container is not None:
            await pod.container.end()
        self.pods.pop((pod.namespace, pod.name), None)
        last = self._api.get("Pod", pod.name, pod.namespace)
        if last is not None:
            if pod.container is not None:  # its end is told before the object goes
                self._write(pod, last)
            self._api.remove("Pod", pod.name, pod.namespace, gracePeriodSeconds=0)
        shutil.rmtree(pod.folder, ignore_errors=True)
        self._changed()

    def _write(self, pod: RunningPod, thing: Object) -> None:
        before = thing.get("status", {})
        user = thing["spec"]["containers"][0]
        running = pod.container is not None and pod.container.exit_code is None
        state: Object = {"running": {"startedAt": now()}} if running else {"waiting": _waiting(*pod.waiting)}
        old = next((s for s in before.get("containerStatuses", ()) if s["name"] == user["name"]), {})
        if pod.ending is not None and pod.container is not None and not running:
            state = {"terminated": _terminated(pod.container.exit_code, old)}
        if running and "running" in old.get("state", {}) and old.get("restartCount") == pod.restarts:
            state = old["state"]
        if running:
            pod.started_at = state["running"]["startedAt"]
        statuses = [
            {
                "name": user["name"],
                "image": user["image"],
                "imageID": user["image"] if running else "",
                "ready": pod.ready,
                "started": running,
                "restartCount": pod.restarts,
                "state": state,
                "lastState": {"terminated": pod.last} if pod.last else {},
            },
            {
                "name": QUEUE,
                "image": "knative.dev/queue",
                "imageID": "",
                "ready": pod.ready,
                "restartCount": 0,
                "state": {},
            },
        ]
        ready = "True" if pod.ready else "False"
        conditions = _since([{"type": t, "status": s} for t, s in _conditions(ready)], before)
        status = {
            "phase": "Running" if running or pod.restarts else "Pending",
            "qosClass": "Burstable",
            "podIP": "127.0.0.1",
            "conditions": conditions,
            "containerStatuses": statuses,
        }
        if self._api.get("Pod", pod.name, pod.namespace) is not None:
            self._api.set_status("Pod", pod.name, pod.namespace, status)

    def _life(self, namespace: str, name: str, previous: bool) -> int:
        pod = self.pods.get((namespace, name))
        return 0 if pod is None else pod.restarts - (previous or pod.container is None)

    def _log(self, namespace: str, name: str, previous: bool) -> str | None:
        pod = self.pods.get((namespace, name))
        if pod is None:
            return None
        if previous or (pod.container is None and pod.restarts):
            lines = pod.last_lines
        elif pod.container is not None:
            lines = pod.container.lines()
        else:
            return None
        return "".join(f"{line}\n" for line in lines)


def _conditions(ready: str) -> tuple[tuple[str, str], ...]:
    return (("PodScheduled", "True"), ("Initialized", "True"), ("ContainersReady", ready), ("Ready", ready))


def _since(conditions: list[Object], before: Object) -> list[Object]:
    """With the time of each one's last change."""
    old = {entry["type"]: entry for entry in before.get("conditions", ())}
    for entry in conditions:
        last = old.get(entry["type"])
        same = last is not None and last["status"] == entry["status"]
        entry["lastTransitionTime"] = last["lastTransitionTime"] if last is not None and same else now()
    return conditions


def _terminated(code: int | None, before: Object) -> Object:
    """How a container ended that will not be started again; once told, it stays so."""
    told: Object | None = before.get("state", {}).get("terminated")
    if told is not None:
        return told
    started = before.get("state", {}).get("running", {}).get("startedAt") or now()
    reason = "Error" if code else "Completed"
    return {"exitCode": code or 0, "reason": reason, "startedAt": started, "finishedAt": now()}


def _waiting(reason: str, message: str) -> Object:
    return {"reason": reason} | ({"message": message} if message else {})


def _tells(container: Object) -> bool:
    return container.get("terminationMessagePolicy", "FallbackToLogsOnError") == "FallbackToLogsOnError"
