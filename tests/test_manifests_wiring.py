"""The manifests' parts fit each other, and the settings they give are ones that the gateway reads."""

import json
import subprocess
import sys
from typing import Any

import pytest
import yaml
from pydantic_settings import BaseSettings

from manifest_objects import MANIFESTS, OVERLAYS, one, overlay, pods
from roost_gateway.settings import Settings

SECRETS = {
    "ROOST_OPERATOR_KEY": "k" * 24,
    "ROOST_SERVICE_SECRET_KEY": "s" * 32,
    "ROOST_DATABASE_URL": "postgresql+psycopg://roost@db/roost",
    "AWS_ACCESS_KEY_ID": "id",
    "AWS_SECRET_ACCESS_KEY": "secret",
}
"""Stand-ins for what the operator puts into Secrets."""


def labels_of_pods(objects: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [template["metadata"]["labels"] for _, template in pods(objects)]


def meets(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    among = all(labels.get(e["key"]) in e["values"] for e in selector.get("matchExpressions", []))
    return wanted and among


@pytest.mark.parametrize("name", OVERLAYS)
def test_selectors_find_pods_and_services_find_their_ports(name: str):
    objects = overlay(name)
    deployment = one(objects, "Deployment", "roost-gateway")["spec"]
    gateway = deployment["template"]["metadata"]["labels"]
    ports = {port["name"] for port in deployment["template"]["spec"]["containers"][0]["ports"]}
    assert meets(deployment["selector"], gateway)
    for service in (o["spec"] for o in objects if o["kind"] == "Service"):
        assert service["selector"].items() <= gateway.items()
        assert [p for p in labels_of_pods(objects) if service["selector"].items() <= p.items()] == [gateway]
        assert {port["targetPort"] for port in service["ports"]} <= ports
    for budget in (o["spec"] for o in objects if o["kind"] == "PodDisruptionBudget"):
        assert meets(budget["selector"], gateway)
    for scaler in (o["spec"] for o in objects if o["kind"] == "HorizontalPodAutoscaler"):
        assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "roost-gateway"}
        assert "replicas" not in deployment  # applying again would undo what the autoscaler did


@pytest.mark.parametrize("name", OVERLAYS)
def test_traffic_is_denied_but_for_what_gateways_need(name: str):
    policies = {o["metadata"]["name"]: o["spec"] for o in overlay(name) if o["kind"] == "NetworkPolicy"}
    assert policies.pop("default-deny") == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for policy in policies.values():
        assert any(meets(policy["podSelector"], labels) for labels in labels_of_pods(overlay(name)))
        rules = [*policy.get("ingress", []), *policy.get("egress", [])]
        assert rules
        assert all(rule.get("ports") and (rule.get("from") or rule.get("to")) for rule in rules)  # neither means: all
    public, internal = policies["into-gateways"]["ingress"]
    assert [port["port"] for port in (*public["ports"], *internal["ports"])] == ["http", "internal"]
    assert public["from"][0]["namespaceSelector"]["matchExpressions"][0] == {
        "key": "roost.dev/tenant", "operator": "DoesNotExist",
    }  # fmt: skip
    assert set(internal["from"][0]) == {"namespaceSelector", "podSelector"}  # one peer: both must hold
    peers = [peer for policy in policies.values() for rule in policy.get("egress", []) for peer in rule["to"]]
    for block in (peer["ipBlock"] for peer in peers if "ipBlock" in peer):  # a node's identity is for nobody
        assert "169.254.0.0/16" in block.get("except", []) or block["cidr"].endswith("/32")


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_gateway_knows_every_setting_and_starts_with_them(name: str):
    config = one(overlay(name), "ConfigMap", "roost-settings")
    known = set(variables(Settings))
    for pod, template in pods(overlay(name)):
        (container,) = template["spec"]["containers"]
        assert container["envFrom"] == [{"configMapRef": {"name": config["metadata"]["name"]}}]
        environment = dict(config["data"])
        for entry in container["env"]:
            assert set(entry["valueFrom"]) == {"secretKeyRef"}, "secrets come from Secrets, settings from the ConfigMap"
            environment[entry["name"]] = SECRETS[entry["name"]]
        assert {n for n in environment if not n.startswith("AWS_")} <= known
        assert template["spec"]["enableServiceLinks"] is False  # the Service `roost` would set ROOST_PORT
        assert pod != "roost-gateway" or "ROOST_OPERATOR_KEY" in environment  # without it none listens on 0.0.0.0
        settings = read_by_the_gateway(environment)
        assert (settings["engine"], settings["port"], settings["internal_port"]) == ("knative", 8000, 8001), pod
        assert (settings["database_url"] is None) == (settings["artifacts"]["url"] is None) == (name == "dev")


@pytest.mark.parametrize("name", OVERLAYS)
def test_addresses_in_settings_are_those_of_the_services(name: str):
    objects = overlay(name)
    settings = one(objects, "ConfigMap", "roost-settings")["data"]
    container = one(objects, "Deployment", "roost-gateway")["spec"]["template"]["spec"]["containers"][0]
    numbers = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
    assert numbers == {"http": settings["ROOST_PORT"], "internal": settings["ROOST_INTERNAL_PORT"]}
    internal = one(objects, "Service", "roost-internal")
    host = f"roost-internal.{internal['metadata']['namespace']}.svc.{settings['ROOST_KNATIVE_CLUSTER_DOMAIN']}"
    assert settings["ROOST_KNATIVE_ARTIFACT_URL"] == f"http://{host}:{internal['spec']['ports'][0]['port']}"
    assert settings["ROOST_KNATIVE_SYSTEM_NAMESPACE"] == internal["metadata"]["namespace"]
    policy = one(objects, "ValidatingAdmissionPolicy", "roost-gateway-stays-in-its-namespaces")["spec"]
    assert f'startsWith("{settings["ROOST_KNATIVE_NAMESPACE_PREFIX"]}")' in policy["validations"][0]["expression"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_gateway_that_stops_gets_the_time_that_it_may_take(name: str):
    template = one(overlay(name), "Deployment", "roost-gateway")["spec"]["template"]["spec"]
    (container,) = template["containers"]
    grace_s = float(one(overlay(name), "ConfigMap", "roost-settings")["data"]["ROOST_GRACE_S"])
    before_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert template["terminationGracePeriodSeconds"] >= before_s + grace_s + 15
    probes = {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert probes == {"/readyz", "/livez"}
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"  # a database that is away is no reason to restart


def test_dev_is_one_gateway_on_one_volume():
    objects = overlay("dev")
    spec = one(objects, "Deployment", "roost-gateway")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    volume = next(v for v in spec["template"]["spec"]["volumes"] if v["name"] == "data")
    assert volume == {"name": "data", "persistentVolumeClaim": {"claimName": "roost-data"}}
    assert one(objects, "PersistentVolumeClaim", "roost-data")
    assert not {"HorizontalPodAutoscaler", "PodDisruptionBudget", "Job"} & {o["kind"] for o in objects}


def test_prod_is_at_least_two_gateways_that_need_not_stand_on_one_node():
    objects = overlay("prod")
    assert one(objects, "HorizontalPodAutoscaler", "roost-gateway")["spec"]["minReplicas"] == 2
    spec = one(objects, "Deployment", "roost-gateway")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    (kind,) = spec["template"]["spec"]["affinity"]["podAntiAffinity"]
    assert kind == "preferredDuringSchedulingIgnoredDuringExecution"
    job = one(objects, "Job", "roost-migrate")["spec"]
    assert job["template"]["spec"]["containers"][0]["args"] == ["migrate"]
    assert job["ttlSecondsAfterFinished"] > 0  # a Job cannot be changed: the next release applies its own


def test_gpu_adds_its_image_and_where_it_may_run_and_turns_on_what_knative_needs_for_that():
    settings = one(overlay("gpu"), "ConfigMap", "roost-settings")["data"]
    assert one(overlay("prod"), "ConfigMap", "roost-settings")["data"].items() <= settings.items()
    assert all(isinstance(label, str) for label in json.loads(settings["ROOST_KNATIVE_GPU_NODE_SELECTOR"]).values())
    assert {t["effect"] for t in json.loads(settings["ROOST_KNATIVE_GPU_TOLERATIONS"])} == {"NoSchedule"}
    features = yaml.safe_load((MANIFESTS / "components" / "gpu" / "config-features.yaml").read_text())
    assert features == {
        "data": {"kubernetes.podspec-nodeselector": "enabled", "kubernetes.podspec-tolerations": "enabled"}
    }


@pytest.mark.parametrize("name", OVERLAYS)
def test_all_images_are_named_in_one_place(name: str):
    kustomization = yaml.safe_load((MANIFESTS / "images" / "kustomization.yaml").read_text())
    named = {f"{image['newName']}:{image['newTag']}" for image in kustomization["images"]}
    settings = one(overlay(name), "ConfigMap", "roost-settings")["data"]
    used = {value for key, value in settings.items() if key.startswith("ROOST_KNATIVE_IMAGE_ONNX")}
    used |= {container["image"] for _, template in pods(overlay(name)) for container in template["spec"]["containers"]}
    assert used <= named
    assert len(used) == (3 if name == "gpu" else 2)


def test_every_setting_is_on_the_operators_page():
    page = (MANIFESTS.parent / "docs" / "operations.md").read_text()
    assert [name for name in variables(Settings) if f"`{name}`" not in page] == []


def variables(settings: type[BaseSettings]) -> list[str]:
    """The environment variables that a theme of settings reads, those of its themes included."""
    names = []
    for field, info in settings.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseSettings):
            names += variables(info.annotation)
        else:
            names.append(f"{settings.model_config['env_prefix']}{field}".upper())
    return names


def read_by_the_gateway(environment: dict[str, str]) -> dict[str, Any]:
    """What the server makes of an environment, in a process that has no other."""
    code = "from roost_gateway.settings import Settings; s = Settings(); print(s.model_dump_json())"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))
