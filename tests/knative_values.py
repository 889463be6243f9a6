"""Domain values for tests of the Knative engine's objects: one of each, and any that is valid."""

from typing import Any

from hypothesis import strategies as st

from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.scaling import Autoscaler, Metric, ScalingPolicy
from roost_platform.domain.services import Revision, Service, ServiceKey, TrafficTarget
from roost_platform.domain.signatures import Signature
from roost_platform.engines.knative.features import Features
from roost_platform.engines.knative.settings import KnativeSettings, Toleration

SIGNATURE = Signature.from_json({"inputs": [], "outputs": []})
IMAGES = {"onnx-cpu": "registry.example/roost/onnx-cpu@sha256:" + "a" * 64, "onnx-gpu": "registry.example/gpu:1"}
SETTINGS = KnativeSettings(images=IMAGES)
GPU_SETTINGS = KnativeSettings(
    images=IMAGES,
    gpu_node_selector={"accelerator": "gpu"},
    gpu_tolerations=(
        Toleration("nvidia.com/gpu"),
        Toleration("team", operator="Equal", value="ml", effect="NoExecute"),
    ),
    gpu_runtime_class="nvidia",
)
ALL_FEATURES = Features(node_selector=True, tolerations=True, runtime_class=True)
FINGERPRINT = "0123456789ab"
KEY = ServiceKey("acme", "iris")


def make_revision(name: str = "iris-00001", version: int = 1, **fields: Any) -> Revision:
    usual = {"digest": "d" * 64, "size": 20_000, "signature": SIGNATURE, "memory_bytes": 5 * 1024**2}
    return Revision(name=name, version=version, **(usual | fields))


def make_service(*revisions: Revision, key: ServiceKey = KEY, scaling: ScalingPolicy | None = None) -> Service:
    revisions = revisions or (make_revision(),)
    return Service(key, revisions, (TrafficTarget(revisions[0].name, 100),), scaling or ScalingPolicy())


labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
_parts = [
    "v1",
    "v12",
    "g2",
    "m",
    "t0123456789ab",
    "iris",
    "x",
    "00001",
    "123456",
    "abc123",
    "abcdef",
    "private",
    "secret",
]
tricky = st.lists(st.sampled_from([*_parts, "0123456789ab"]), min_size=1, max_size=5).map("-".join)
"""Names made of what the names of Knative's own objects are made of."""
model_names = labels | tricky
keys = st.builds(ServiceKey, labels | tricky, model_names)


@st.composite
def policies(draw: st.DrawFn) -> ScalingPolicy:
    """Any policy that the domain accepts."""
    autoscaler = draw(st.sampled_from(Autoscaler))
    hpa = autoscaler is Autoscaler.HPA
    most = draw(st.just(0) | st.integers(1, 1000))
    return ScalingPolicy(
        min_scale=draw(st.integers(int(hpa), most or 1000)),
        max_scale=most,
        initial_scale=draw(st.integers(1, 1000)),
        activation_scale=draw(st.integers(1, 1000)),
        autoscaler=autoscaler,
        metric=draw(st.sampled_from((Metric.CPU, Metric.MEMORY) if hpa else (Metric.CONCURRENCY, Metric.RPS))),
        target=draw(st.none() | st.floats(0.01, 1e9)),
        target_utilization_percentage=draw(st.floats(1, 100)),
        container_concurrency=draw(st.integers(0, 1000)),
        window_s=draw(st.just(60) | st.integers(6, 3600)),
        panic_window_percentage=draw(st.floats(1, 100)),
        panic_threshold_percentage=draw(st.floats(110, 1000)),
        scale_down_delay_s=draw(st.integers(0, 3600)),
        scale_to_zero_pod_retention_period_s=draw(st.integers(0, 3600)),
        timeout_s=draw(st.integers(1, 3600)),
    )


features = st.builds(
    Features,
    node_selector=st.booleans(),
    tolerations=st.booleans(),
    runtime_class=st.booleans(),
    max_timeout_s=st.sampled_from((600, 30, 3600)),
    max_container_concurrency=st.sampled_from((1000, 10)),
    zero_container_concurrency=st.booleans(),
    max_scale_limit=st.sampled_from((0, 1, 20)),
)
settings = st.sampled_from(
    (
        SETTINGS,
        GPU_SETTINGS,
        KnativeSettings(images=IMAGES, image_pull_secret="registry", runtime_class="gvisor", cpu_limit_m=500),
    )
)


@st.composite
def services(draw: st.DrawFn, *, most: int = 4) -> Service:
    """Any service, its revisions named as Roost names them."""
    key = draw(keys)
    generations = draw(st.lists(st.integers(1, 10**7), min_size=1, max_size=most, unique=True))
    revisions = tuple(
        Revision(
            name=f"{key.model}-{generation:05d}",
            version=draw(st.integers(1, 3) | st.integers(1, 10**9)),
            digest=draw(st.sampled_from(("0" * 64, "f" * 64))),
            size=draw(st.integers(0, 2**31)),
            signature=SIGNATURE,
            runtime=draw(st.sampled_from(tuple(IMAGES))),
            max_batch_size=draw(st.integers(1, 128)),
            memory_bytes=draw(st.integers(0, 2**36)),
            proven=draw(st.booleans()),
        )
        for generation in generations
    )
    return Service(key, revisions, (), draw(policies()))


def refusal(error: InvalidRequest) -> tuple[str, str | None, str]:
    return error.code, error.field, error.message
