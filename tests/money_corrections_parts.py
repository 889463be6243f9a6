"""Corrections of usage as they are sent."""

from typing import Any

from gateway_parts import NOON


def correction(id: str = "c-1", *, corrects: tuple[str, int] | None = None, **changes: Any) -> dict[str, Any]:  # noqa: A002
    """A CloudEvent; `changes` are attributes of it, or of its data."""
    data = {
        "model": "iris",
        "version": 1,
        "outcome": "ok",
        "requests": -1,
        "rows": -1,
        "compute_us": -1500,
        "bytes_in": -100,
        "bytes_out": -60,
        "reason": "answered twice",
    }
    event = {
        "specversion": "1.0",
        "id": id,
        "source": "/desk",
        "type": "io.roost.usage.correction.v1",
        "subject": "tenant/acme",
        "time": NOON.isoformat(),
    }
    if corrects is not None:
        data["corrects"] = {"source": corrects[0], "sequence": corrects[1]}
    event |= {name: value for name, value in changes.items() if name not in data}
    return event | {"data": data | {name: value for name, value in changes.items() if name in data}}
