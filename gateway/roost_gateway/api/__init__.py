"""The control API: FastAPI over the gateway's own parts, and over registry, metering and billing."""
