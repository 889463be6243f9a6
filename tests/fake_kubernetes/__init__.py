"""A fake Kubernetes API server with real semantics, for tests of what talks to a cluster."""

from fake_kubernetes.errors import Refused
from fake_kubernetes.server import FakeKubernetes

__all__ = ["FakeKubernetes", "Refused"]
