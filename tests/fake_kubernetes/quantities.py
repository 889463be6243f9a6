"""Amounts as Kubernetes writes them, in exact arithmetic."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from fake_kubernetes.schemas import QUANTITY

_SUFFIXES = {
    "n": "1e-9",
    "u": "1e-6",
    "m": "1e-3",
    "": "1",
    "k": "1e3",
    "M": "1e6",
    "G": "1e9",
    "T": "1e12",
    "P": "1e15",
}
_BINARY = {f"{letter}i": 1024**power for power, letter in enumerate("KMGTPE", 1)}


def quantity(text: str | float) -> Decimal:
    """`250m` is 0.25, `1Ki` 1024. Raises ValueError."""
    found = QUANTITY.fullmatch(str(text))
    if found is None:
        raise ValueError(f"quantities must match the regular expression {QUANTITY.pattern!r}: {text!r}")
    suffix = found[3] or ""
    if suffix in _BINARY:
        return Decimal(str(text)[: -len(suffix)]) * _BINARY[suffix]
    if suffix in _SUFFIXES:
        return Decimal(str(text)[: len(str(text)) - len(suffix)]) * Decimal(_SUFFIXES[suffix])
    return Decimal(str(text)) * (Decimal("1e18") if suffix == "E" else 1)


def spell(amount: Decimal) -> str:
    """Short and exact: whole, or in thousandths."""
    if amount == amount.to_integral_value():
        return str(int(amount))
    return f"{int(amount * 1000)}m"


def of_pod(pod: Mapping[str, Any]) -> dict[str, Decimal]:
    """What a pod counts for in a quota: `requests.cpu`, `limits.memory`, `cpu` …, and `pods`."""
    total: dict[str, Decimal] = {"pods": Decimal(1), "count/pods": Decimal(1)}
    for container in pod["spec"].get("containers", ()):
        for side in ("requests", "limits"):
            for name, amount in container.get("resources", {}).get(side, {}).items():
                names = [f"{side}.{name}"] + ([name] if side == "requests" else [])
                for counted in names:
                    total[counted] = total.get(counted, Decimal(0)) + quantity(amount)
    return total
