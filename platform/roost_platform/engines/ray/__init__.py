"""The engine that runs models as applications of Ray Serve."""
