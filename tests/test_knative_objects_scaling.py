"""A scaling policy in Knative's words, and what a cluster's own settings let through."""

from dataclasses import replace

import pytest
import yaml
from hypothesis import given

from knative_rules import DATA
from knative_values import GPU_SETTINGS, SETTINGS, make_revision, policies, refusal
from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.scaling import Autoscaler, Metric, ScalingPolicy
from roost_platform.domain.services import Readiness, RevisionStatus
from roost_platform.engines.knative.annotations import container_concurrency, scaling_annotations, spec_fields
from roost_platform.engines.knative.features import Features, Reason

MIB = 1024**2


def annotations(features: Features | None = None, **policy: object) -> dict[str, str]:
    made = scaling_annotations(
        ScalingPolicy(**policy), SETTINGS, features or Features(), memory_request_bytes=200 * MIB
    )
    return {name.removeprefix("autoscaling.knative.dev/"): value for name, value in made.items()}


def test_every_option_of_a_policy_under_knatives_name():
    assert annotations(
        min_scale=2,
        max_scale=20,
        initial_scale=3,
        activation_scale=4,
        metric=Metric.RPS,
        target=0.25,
        target_utilization_percentage=62.5,
        window_s=90,
        panic_window_percentage=12.5,
        panic_threshold_percentage=150,
        scale_down_delay_s=30,
        scale_to_zero_pod_retention_period_s=45,
    ) == {
        "class": "kpa.autoscaling.knative.dev",
        "metric": "rps",
        "min-scale": "2",
        "max-scale": "20",
        "initial-scale": "3",
        "activation-scale": "4",
        "target": "0.25",
        "target-utilization-percentage": "62.5",
        "target-burst-capacity": "-1",
        "window": "90s",
        "panic-window-percentage": "12.5",
        "panic-threshold-percentage": "150",
        "scale-down-delay": "30s",
        "scale-to-zero-pod-retention-period": "45s",
    }


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({}, "100"),
        ({"container_concurrency": 8}, "8"),
        ({"metric": Metric.RPS}, "200"),
        ({"target": 1e9}, "1000000000"),
        ({"target": 0.01}, "0.01"),
        ({"target": 33.3333333}, "33.333333"),
        ({"target": 10.00000001}, "10"),
    ],
)
def test_the_target_is_said_even_where_it_is_the_default(policy: dict, expected: str):
    assert annotations(**policy)["target"] == expected


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({}, None),  # 1 is what Knative does anyway, and refuses to be told
        ({"activation_scale": 3}, "3"),
        ({"activation_scale": 3, "min_scale": 4}, None),
        ({"activation_scale": 9, "max_scale": 5}, "5"),
        ({"activation_scale": 9, "max_scale": 1}, None),
    ],
)
def test_the_activation_scale_is_said_only_where_knative_takes_it(policy: dict, expected: str | None):
    assert annotations(**policy).get("activation-scale") == expected


def test_nothing_is_asked_beyond_max_scale():
    made = annotations(initial_scale=10, max_scale=3)
    assert (made["initial-scale"], made["max-scale"]) == ("3", "3")
    assert "max-scale" not in annotations()


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"metric": Metric.CPU}, {"metric": "cpu", "target": "80"}),
        (
            {"metric": Metric.CPU, "target": 55.5, "window_s": 120},
            {"metric": "cpu", "target": "55.5", "window": "120s"},
        ),
        ({"metric": Metric.MEMORY}, {"metric": "memory", "target": "160"}),  # 80 % of what is requested, in MiB
        ({"metric": Metric.MEMORY, "target": 0.5}, {"metric": "memory", "target": "1"}),
    ],
)
def test_hpa_is_told_only_what_it_knows(policy: dict, expected: dict[str, str]):
    made = annotations(autoscaler=Autoscaler.HPA, min_scale=1, max_scale=4, **policy)
    usual = {"class": "hpa.autoscaling.knative.dev", "min-scale": "1", "max-scale": "4", "initial-scale": "1"}
    assert made == usual | expected


@pytest.mark.parametrize(
    ("policy", "features", "expected"),
    [
        (ScalingPolicy(), Features(), (0, 300)),
        (ScalingPolicy(container_concurrency=5, timeout_s=600), Features(), (5, 600)),
        (ScalingPolicy(container_concurrency=50, timeout_s=3600), Features(max_container_concurrency=10), (10, 600)),
        (ScalingPolicy(timeout_s=3600), Features(max_timeout_s=7200), (0, 3600)),
        (ScalingPolicy(), Features(zero_container_concurrency=False), (1000, 300)),
    ],
)
def test_three_options_are_fields_of_the_spec(policy: ScalingPolicy, features: Features, expected: tuple[int, int]):
    """The first byte may take as long as the whole: Knative's own default for it would cut a longer timeout."""
    slots, timeout = expected
    assert spec_fields(policy, features) == {
        "containerConcurrency": slots,
        "timeoutSeconds": timeout,
        "responseStartTimeoutSeconds": timeout,
        "idleTimeoutSeconds": 0,
    }
    assert container_concurrency(policy, features) == slots


def data_of(name: str) -> dict[str, str]:
    """A ConfigMap as Knative ships it, every option spelt out as its example does."""
    config = yaml.safe_load((DATA / "config" / f"{name}.yaml").read_text())
    return {key: str(value) for key, value in yaml.safe_load(config["data"]["_example"]).items()}


def test_a_cluster_that_nobody_changed_answers_as_knatives_own_files_say():
    assert Features.read({}) == Features()
    assert Features.read({"_example": "kubernetes.podspec-nodeselector: enabled"}, {"_example": "x"}, {}) == Features()
    assert Features.read(data_of("features"), data_of("defaults"), data_of("autoscaler")) == Features()


def test_flags_and_limits_are_read_as_knative_reads_them():
    assert Features.read(
        {
            "kubernetes.podspec-nodeselector": "Enabled",
            "kubernetes.podspec-tolerations": "allowed",
            "kubernetes.podspec-runtimeclassname": "yes",  # not a word of Knative's: the default holds
            "kubernetes.podspec-volumes-emptydir": "disabled",
        },
        {
            "max-revision-timeout-seconds": "3600",
            "container-concurrency-max-limit": "20",
            "allow-container-concurrency-zero": "false",
        },
        {"max-scale-limit": "50"},
    ) == Features(
        node_selector=True,
        tolerations=True,
        runtime_class=False,
        empty_dir=False,
        max_timeout_s=3600,
        max_container_concurrency=20,
        zero_container_concurrency=False,
        max_scale_limit=50,
    )
    assert Features.read({}, {"max-revision-timeout-seconds": "soon"}) == Features()


@pytest.mark.parametrize(
    ("policy", "features", "option", "limit", "setting"),
    [
        (
            ScalingPolicy(timeout_s=3600),
            Features(),
            "timeout",
            "at most 600",
            "raise max-revision-timeout-seconds in config-defaults",
        ),
        (
            ScalingPolicy(container_concurrency=11),
            Features(max_container_concurrency=10),
            "container-concurrency",
            "at most 10",
            "raise container-concurrency-max-limit in config-defaults",
        ),
        (
            ScalingPolicy(),
            Features(zero_container_concurrency=False),
            "container-concurrency",
            "at least 1",
            "set allow-container-concurrency-zero in config-defaults",
        ),
        (
            ScalingPolicy(min_scale=6),
            Features(max_scale_limit=5),
            "max-scale",
            "at most 5",
            "raise max-scale-limit in config-autoscaler",
        ),
    ],
)
def test_a_policy_over_the_clusters_limits_is_refused_and_one_kept_from_before_is_held_to_them(
    policy: ScalingPolicy, features: Features, option: str, limit: str, setting: str
):
    message = f"{option} must be {limit} on this cluster (its operator may {setting})"
    with pytest.raises(InvalidRequest) as refused:
        features.check(policy)
    assert refusal(refused.value) == ("invalid_scaling_policy", option, message)
    assert features.reasons(make_revision(), policy, SETTINGS) == (
        Reason("LimitedByCluster", f"{message}; the limit is used until then", refused=False),
    )


@given(policies())
def test_what_check_lets_through_is_followed_to_the_letter(policy: ScalingPolicy):
    features = Features(max_timeout_s=600, max_scale_limit=500)
    if features.reasons(make_revision(), policy, SETTINGS):
        with pytest.raises(InvalidRequest):
            features.check(policy)
        return
    features.check(policy)
    assert spec_fields(policy, features)["timeoutSeconds"] == policy.timeout_s
    assert spec_fields(policy, features)["containerConcurrency"] == policy.container_concurrency


@pytest.mark.parametrize(
    ("flag", "features", "refused", "wish"),
    [
        (
            "kubernetes.podspec-nodeselector",
            {"node_selector": False},
            False,
            "GPU replicas are to be bound to labelled",
        ),
        ("kubernetes.podspec-tolerations", {"tolerations": False}, False, "GPU replicas are to tolerate their nodes'"),
        (
            "kubernetes.podspec-runtimeclassname",
            {"runtime_class": False},
            True,
            "replicas are to run in a RuntimeClass",
        ),
        ("kubernetes.podspec-volumes-emptydir", {"empty_dir": False}, True, "replicas keep their model in an emptyDir"),
    ],
)
def test_the_operator_is_told_which_flag_to_turn_on(flag: str, features: dict, refused: bool, wish: str):
    cluster = replace(Features(node_selector=True, tolerations=True, runtime_class=True), **features)
    (reason,) = cluster.reasons(make_revision(runtime="onnx-gpu"), ScalingPolicy(), GPU_SETTINGS)
    assert (reason.reason, reason.refused) == ("FeatureDisabled", refused)
    assert reason.message.startswith(wish)
    assert f'set {flag}: "enabled" in Knative\'s config-features' in reason.message


def test_a_gpu_revision_that_no_node_takes_says_what_the_cluster_left_out():
    revision = make_revision(runtime="onnx-gpu")
    waiting = RevisionStatus(revision.name, Readiness.UNKNOWN, "Unschedulable", "no node has room for a replica")
    told = Features(runtime_class=True).hinted(waiting, revision, GPU_SETTINGS)
    assert (told.name, told.ready, told.reason) == (revision.name, Readiness.UNKNOWN, "Unschedulable")
    reasons = Features(runtime_class=True).reasons(revision, ScalingPolicy(), GPU_SETTINGS)
    assert told.message == "; ".join((waiting.message, *(reason.message for reason in reasons)))
    assert [flag in told.message for flag in ("podspec-nodeselector", "podspec-tolerations")] == [True, True]
    assert Features().hinted(waiting, make_revision(), GPU_SETTINGS) == waiting
    failed = RevisionStatus(revision.name, Readiness.FALSE, "OutOfMemory", "it needed more memory")
    assert Features().hinted(failed, revision, GPU_SETTINGS) == failed


def test_a_wish_that_nobody_has_needs_no_flag():
    assert Features().reasons(make_revision(), ScalingPolicy(), GPU_SETTINGS) == ()
    assert Features().reasons(make_revision(runtime="onnx-gpu"), ScalingPolicy(), SETTINGS) == ()
    (reason,) = Features().reasons(make_revision(), ScalingPolicy(), replace(SETTINGS, runtime_class="gvisor"))
    assert reason.refused
