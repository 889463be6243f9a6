"""Kubernetes quantities in their canonical spelling, so that what a cluster stores is what was sent."""

_UNITS = (("Gi", 1024**3), ("Mi", 1024**2), ("Ki", 1024))
_MIB = 1024**2


def cores(thousandths: int) -> str:
    """`250m`, and `2` for 2000."""
    return str(thousandths // 1000) if thousandths % 1000 == 0 else f"{thousandths}m"


def size(count: int) -> str:
    """Bytes in the largest binary unit that divides them: `512Mi`, `2Gi`, `1000`."""
    for unit, factor in _UNITS:
        if count and count % factor == 0:
            return f"{count // factor}{unit}"
    return str(count)


def whole_mib(count: float) -> int:
    """Bytes rounded up to a whole MiB."""
    return -int(-count // _MIB) * _MIB
