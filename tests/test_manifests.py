"""The manifests (S18): each overlay builds, is valid to the letter, admitted by Pod Security `restricted`, grants little."""

from typing import Any

import kubernetes_validate
import pytest

from manifest_objects import MANIFESTS, OVERLAYS, built, one, overlay, pods

VERSION = "1.36"
ADMITTED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected"}
ADMITTED_VOLUMES |= {"secret"}
READING = {"get", "list", "watch"}
CEL_WORDS = {
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
}
CEL_WORDS |= {"namespace", "null", "package", "return", "true", "var", "void", "while"}
"""Reserved in the Common Expression Language: the API server refuses a policy with a variable of such a name."""


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_object_is_valid_and_has_no_field_that_kubernetes_does_not_know(name: str):
    assert len(overlay(name)) >= 15
    for thing in overlay(name):
        kubernetes_validate.validate(thing, VERSION, strict=True)


def test_validation_finds_a_field_that_is_not_there():
    deployment = one(overlay("dev"), "Deployment", "roost-gateway")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**deployment, "spec": {**deployment["spec"], "replica": 1}}, VERSION, strict=True)


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_object_is_there_twice_and_each_lies_in_a_namespace_that_is_meant(name: str):
    keys = [(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in overlay(name)]
    assert len(set(keys)) == len(keys)
    cluster_wide = {o["kind"] for o in overlay(name) if "namespace" not in o["metadata"]}
    assert cluster_wide == {
        "Namespace", "ClusterRole", "ClusterRoleBinding", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
    }  # fmt: skip
    assert {o["metadata"].get("namespace") for o in overlay(name)} == {None, "roost", "knative-serving"}


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_pod_passes_pod_security_restricted(name: str):
    namespace = one(overlay(name), "Namespace", "roost")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for pod_name, template in pods(overlay(name)):
        assert breaches(template["spec"]) == [], pod_name


def test_the_check_for_pod_security_finds_what_it_is_for():
    template = one(overlay("dev"), "Deployment", "roost-gateway")["spec"]["template"]["spec"]
    container = template["containers"][0]
    unconfined = {**container["securityContext"], "seccompProfile": {"type": "Unconfined"}}
    assert breaches({**template, "hostNetwork": True}) == ["hostNetwork"]
    assert breaches({**template, "volumes": [{"name": "root", "hostPath": {"path": "/"}}]}) == ["volume root"]
    for context, found in (({}, ["escalation", "capabilities"]), (unconfined, ["seccomp"])):
        assert breaches({**template, "containers": [{**container, "securityContext": context}]}) == found
    assert breaches({**template, "securityContext": {}}) == ["root", "seccomp"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_containers_cannot_write_their_root_and_have_requests_and_limits(name: str):
    for _, template in pods(overlay(name)):
        for container in template["spec"]["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert set(container["resources"]["requests"]) == set(container["resources"]["limits"])
            assert {"cpu", "memory", "ephemeral-storage"} == set(container["resources"]["limits"])
            assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/data", "/tmp"}
            volumes = {volume["name"] for volume in template["spec"]["volumes"]}
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes


@pytest.mark.parametrize("name", OVERLAYS)
def test_rights_name_each_verb_and_resource_and_no_secret_can_be_read(name: str):
    rules = [rule for o in overlay(name) if o["kind"] in ("Role", "ClusterRole") for rule in o["rules"]]
    assert rules
    for rule in rules:
        words = [word for part in rule.values() for word in part]
        assert not [word for word in words if "*" in word]
        assert not {"escalate", "bind", "impersonate", "deletecollection"} & set(rule["verbs"])
        assert "secrets" not in rule["resources"] or not READING & set(rule["verbs"])
        assert rule["apiGroups"] != ["rbac.authorization.k8s.io"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_rights_are_bound_to_the_account_that_the_gateway_runs_as(name: str):
    objects = overlay(name)
    account = one(objects, "ServiceAccount", "roost-gateway")["metadata"]
    for binding in (o for o in objects if o["kind"].endswith("RoleBinding")):
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account["name"], "namespace": "roost"}]
        role = one(objects, binding["roleRef"]["kind"], binding["roleRef"]["name"])
        assert role["metadata"].get("namespace") == binding["metadata"].get("namespace")
    tokens = {pod: t["spec"]["automountServiceAccountToken"] for pod, t in pods(objects)}
    assert tokens.pop("roost-gateway") is True
    assert not any(tokens.values())
    policy = one(objects, "ValidatingAdmissionPolicy", "roost-gateway-stays-in-its-namespaces")["spec"]
    assert f'"system:serviceaccount:roost:{account["name"]}"' in policy["matchConditions"][0]["expression"]
    assert not {variable["name"] for variable in policy["variables"]} & CEL_WORDS


def test_the_monitoring_component_scrapes_each_gateway_with_the_operators_key():
    (monitor,) = built(MANIFESTS / "components" / "monitoring")
    service = one(overlay("prod"), "Service", "roost")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    container = one(overlay("prod"), "Deployment", "roost-gateway")["spec"]["template"]["spec"]["containers"][0]
    key = next(e for e in container["env"] if e["name"] == "ROOST_OPERATOR_KEY")["valueFrom"]["secretKeyRef"]
    assert endpoint["authorization"] == {"type": "Bearer", "credentials": key}


def breaches(pod: dict[str, Any]) -> list[str]:
    """What Kubernetes' Pod Security Standard `restricted` would refuse of a pod."""
    context = pod.get("securityContext", {})
    found = [name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    found += [f"volume {v['name']}" for v in pod.get("volumes", []) if not (set(v) - {"name"}) <= ADMITTED_VOLUMES]
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        own = container.get("securityContext", {})
        both = {**context, **own}
        ports = container.get("ports", [])
        checks = {
            "privileged": not own.get("privileged"),
            "hostPort": not any(port.get("hostPort") for port in ports),
            "escalation": own.get("allowPrivilegeEscalation") is False,
            "root": both.get("runAsNonRoot") is True and both.get("runAsUser") != 0,
            "seccomp": both.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
            "capabilities": own.get("capabilities", {}).get("drop") == ["ALL"]
            and set(own["capabilities"].get("add", [])) <= {"NET_BIND_SERVICE"},
            "procMount": own.get("procMount", "Default") == "Default",
            "selinux": not both.get("seLinuxOptions"),
        }
        found += [name for name, passed in checks.items() if not passed]
    return found
