"""The engine that runs revisions as Knative Services on a Kubernetes cluster."""
