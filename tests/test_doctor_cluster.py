"""`roost doctor` on a cluster: what is not well is named, with what to do."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fake_knative import FakeKnative
from fake_kubernetes import FakeKubernetes
from recording_server import serving
from roost_gateway.doctor.cluster import examine_cluster
from roost_gateway.doctor.judging import Finding, Verdict
from roost_gateway.engine_settings import KnativeSettings

FEATURES = {"kubernetes.podspec-nodeselector": "enabled", "kubernetes.podspec-tolerations": "disabled"}


@contextmanager
def cluster(tmp_path) -> Iterator[KnativeSettings]:
    """A fake one on a thread of its own: the doctor blocks the one that asks."""
    ready: list[KnativeSettings] = []
    loop = asyncio.new_event_loop()
    over = asyncio.Event()
    up = threading.Event()

    async def run() -> None:
        async with FakeKubernetes() as api:
            file = tmp_path / "kubeconfig"
            file.write_text(json.dumps(_kubeconfig(api.url, api.token)))
            async with FakeKnative(api, commands={}) as knative:
                ready.append(KnativeSettings(kubeconfig=file, ingress_url=knative.ingress_url))
                up.set()
                await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    assert up.wait(20)
    try:
        yield ready[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


def _kubeconfig(url: str, token: str) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }


def verdicts(findings: list[Finding]) -> list[Verdict]:
    assert {finding.part for finding in findings} == {"cluster"}
    assert all(finding.do for finding in findings if finding.verdict is not Verdict.OK)
    return [finding.verdict for finding in findings]


def test_a_cluster_that_is_well(tmp_path):
    with cluster(tmp_path) as settings:
        findings = examine_cluster(settings)
    assert set(verdicts(findings)) == {Verdict.OK}, findings
    assert findings[0].says.startswith("Knative Serving")
    assert findings[-1].says == "the ingress can be reached"


def test_what_the_settings_need_and_knative_does_not_allow(tmp_path):
    with cluster(tmp_path) as settings:
        wishes = {"image_onnx_gpu": "gpu", "gpu_tolerations": [{"key": "nvidia.com/gpu"}], "runtime_class": "gvisor"}
        findings = examine_cluster(settings.model_copy(update=wishes))
    failed = [finding for finding in findings if finding.verdict is Verdict.FAIL]
    assert [finding.says.split()[4].rstrip(",") for finding in failed] == [
        "kubernetes.podspec-tolerations",
        "kubernetes.podspec-runtimeclassname",
    ]
    assert failed[0].do.startswith("Set kubernetes.podspec-tolerations to enabled in the ConfigMap config-features")


def test_a_cluster_without_knative(tmp_path):
    """Nothing that is asked for is there: so Kubernetes answers for kinds that it does not know."""
    with serving() as api:
        file = tmp_path / "kubeconfig"
        file.write_text(json.dumps(_kubeconfig(api.url, "t")))
        findings = examine_cluster(KnativeSettings(kubeconfig=file, ingress_url="http://127.0.0.1:9"))
    assert findings[0].says == "Knative Serving is not installed", findings
    assert verdicts(findings) == [Verdict.FAIL, Verdict.FAIL]


def test_an_api_server_that_is_away(tmp_path):
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(_kubeconfig("http://127.0.0.1:9", "t")))
    findings = examine_cluster(KnativeSettings(kubeconfig=file, ingress_url="http://127.0.0.1:9"))
    assert verdicts(findings) == [Verdict.FAIL, Verdict.FAIL]
    assert "ROOST_KNATIVE_KUBECONFIG" in findings[0].do
    assert findings[1].says == "nobody listens at 127.0.0.1:9, the cluster's ingress"


def test_a_token_that_is_wrong(tmp_path):
    with cluster(tmp_path) as settings:
        assert settings.kubeconfig is not None
        document = json.loads(settings.kubeconfig.read_text())
        document["users"][0]["user"]["token"] = "wrong"
        settings.kubeconfig.write_text(json.dumps(document))
        assert verdicts(examine_cluster(settings))[0] is Verdict.FAIL


def test_no_cluster_at_all(monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    findings = examine_cluster(KnativeSettings(ingress_url="http://127.0.0.1:9"))
    assert findings[0].says.startswith("this is not a pod with a service account")


@pytest.mark.parametrize("file", ["absent", "nonsense"])
def test_a_kubeconfig_that_is_none(tmp_path, file: str):
    path = tmp_path / file
    if file == "nonsense":
        path.write_text("][")
    findings = examine_cluster(KnativeSettings(kubeconfig=path, ingress_url="http://127.0.0.1:9"))
    assert verdicts(findings)[0] is Verdict.FAIL
