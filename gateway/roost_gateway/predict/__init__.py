"""The prediction path: plain ASGI in front of the control API, nothing of it on disk or in a database."""
