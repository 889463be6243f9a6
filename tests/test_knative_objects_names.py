"""Names in the cluster: legal, stable, and never the same for two things, whatever tenants choose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_rules import DNS_1035, DNS_1123, LABEL_VALUE
from knative_values import (
    GPU_SETTINGS,
    KEY,
    SETTINGS,
    labels,
    make_revision,
    make_service,
    model_names,
    services,
    tricky,
)
from roost_platform.domain.services import ServiceKey
from roost_platform.engines.knative import names
from roost_platform.engines.knative.settings import KnativeSettings


def test_names_that_fit_are_taken_as_they_are():
    assert names.namespace_of("acme", SETTINGS) == "roost-acme"
    assert names.service_name("iris") == "iris"
    assert names.secret_name("iris") == "iris-secret"
    assert names.revision_name("iris", 3, "abcdef0123") == "iris-00003-abcdef"
    assert names.host_of("v2", KEY, SETTINGS) == "v2-iris.roost-acme.svc.cluster.local"


@pytest.mark.parametrize(
    "model",
    [
        "3d-net",  # Knative wants a letter first
        "m" * 47,
        "v1-iris",  # the Kubernetes Service of iris, tag v1
        "v1-g2-iris",
        "g2-iris",  # with tag v1 in front, the one of iris, tag v1-g2
        "t0123456789ab-iris",
        "iris-00001-abc123",  # that of a revision of iris
        "iris-00001-abc123-private",
        names.service_name("3d-net"),  # the short form of another
    ],
)
def test_a_model_that_could_be_taken_for_something_else_gets_a_name_of_its_own(model: str):
    name = names.service_name(model)
    assert name != model
    assert name.startswith("m-")
    assert DNS_1035.fullmatch(name)
    assert len(name) <= 46


@given(st.sets(model_names, min_size=1, max_size=12))
def test_no_two_kubernetes_services_of_a_tenant_share_a_name(models: set[str]):
    """For each Knative Service, route tag and revision Knative makes Kubernetes Services in the tenant's namespace."""
    found: list[str] = []
    for model in models:
        name = names.service_name(model)
        revisions = [names.revision_name(name, generation, "abc123") for generation in (1, 123456, 10**8)]
        found += [name, *(f"{tag}-{name}" for tag in ("v1", "v1-g2", "v12", "t0123456789ab"))]
        found += [*revisions, *(f"{revision}-private" for revision in revisions if len(revision) <= 55)]
    assert len(set(found)) == len(found)
    assert all(DNS_1035.fullmatch(name) for name in found)


@given(st.lists(labels | tricky, min_size=1, max_size=12, unique=True))
def test_no_two_tenants_share_a_namespace(tenants: list[str]):
    named = [names.namespace_of(tenant, SETTINGS) for tenant in tenants]
    assert len(set(named)) == len(named)
    assert all(DNS_1123.fullmatch(name) and name.startswith("roost-") for name in named)


def test_no_tenant_gets_a_namespace_that_roost_stands_on():
    settings = KnativeSettings(
        system_namespace="roost-system", ingress_namespace="roost-door", monitoring_namespace="roost-watch"
    )
    named = [names.namespace_of(tenant, settings) for tenant in ("system", "door", "watch", "serving")]
    assert named[3] == "roost-serving"
    for name, tenant in zip(named, ("system", "door", "watch"), strict=False):
        assert name.startswith(f"roost-m-{tenant}-")


@given(services(most=6))
def test_every_revision_has_a_tag_of_its_own_that_fits_before_its_service(service):
    tags = names.tags_of(service)
    assert tags.keys() == {revision.name for revision in service.revisions}
    assert len(set(tags.values())) == len(tags)
    for tag in tags.values():
        assert DNS_1035.fullmatch(f"{tag}-{names.service_name(service.key.model)}")
        assert all(len(part) <= 63 for part in names.host_of(tag, service.key, SETTINGS).split("."))


def test_a_version_is_served_by_its_newest_proven_revision():
    service = make_service(
        make_revision("iris-00001", 1, proven=True),
        make_revision("iris-00002", 2, proven=True),
        make_revision("iris-00003", 2, proven=True),
        make_revision("iris-00004", 2),
        make_revision("iris-00005", 3),
        make_revision("iris-00006", 3),
    )
    assert names.tags_of(service) == {
        "iris-00001": "v1",
        "iris-00002": "v2-g2",
        "iris-00003": "v2",
        "iris-00004": "v2-g4",
        "iris-00005": "v3-g5",
        "iris-00006": "v3",
    }


def test_a_tag_that_would_be_too_long_or_given_twice_is_a_short_one():
    far = make_service(make_revision("iris-12345678", 12345678), make_revision("iris-12345679", 12345678))
    assert names.tags_of(far)["iris-12345679"] == "v12345678"
    assert names.tags_of(far)["iris-12345678"].startswith("t")
    same = make_service(make_revision("a-1"), make_revision("b-1"), make_revision("c-1"))
    assert len(set(names.tags_of(same).values())) == 3


@given(labels | tricky, labels | tricky, st.integers(1, 10**9))
def test_labels_are_legal_and_tell_models_and_revisions_apart(tenant: str, model: str, generation: int):
    revision = make_revision(f"{model}-{generation:05d}", generation)
    made = names.revision_labels(ServiceKey(tenant, model), revision)
    assert all(LABEL_VALUE.fullmatch(value) for value in made.values())
    other = make_revision(f"{model}-{generation + 1:05d}", generation)
    assert names.revision_labels(ServiceKey(tenant, model), other) != made
    assert made.items() >= names.service_labels(ServiceKey(tenant, model)).items()
    assert names.service_labels(ServiceKey(tenant, model)).items() >= names.tenant_labels(tenant).items()


def test_generations_are_read_from_the_end_of_a_name():
    assert [names.generation_of(name) for name in ("iris-00003", "net2-00012", "x", "7")] == [3, 12, 0, 7]
    assert names.revision_name("x", 10**9 + 5, "0" * 64) == "x-00005-000000"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("namespace_prefix", ""),
        ("namespace_prefix", "roost"),
        ("namespace_prefix", "kube-"),
        ("namespace_prefix", "Roost-"),
        ("namespace_prefix", "a-prefix-that-is-long-"),
        ("system_namespace", "Roost"),
        ("dns_namespace", ""),
        ("cpu_request_m", 3000),
        ("cpu_request_m", 0),
        ("memory_base_bytes", 1024**3),
        ("queue_memory_request_bytes", 1024**3),
        ("images", {}),
        ("artifact_url", "http://roost/"),
    ],
)
def test_settings_that_could_not_work_are_refused_by_name(key: str, value: object):
    with pytest.raises(ValueError, match=f"^{key}: "):
        KnativeSettings(**{key: value})
    assert GPU_SETTINGS.gpu_tolerations[0].operator == "Exists"
