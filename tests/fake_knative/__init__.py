"""A mini Knative for tests: plays its controllers and its data plane on a fake Kubernetes API, with real processes."""

from fake_knative.knative import FakeKnative

__all__ = ["FakeKnative"]
