"""Figures as people read them. The page's script writes its own the same way."""


def milliseconds(value: float) -> str:
    """`12.3 ms`, `1.9 s`."""
    if value >= 1000:
        return f"{value / 1000:.3g} s"
    return f"{value:.3g} ms" if value >= 0.01 or not value else f"{value * 1000:.2g} µs"


def moment(seconds: float) -> str:
    """Since the start: `0:07`, `1:02:03`."""
    whole = int(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def plain(text: object) -> str:
    """What others wrote, on one line: without what cannot be seen, or turns the text around it."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))
