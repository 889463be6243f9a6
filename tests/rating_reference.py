"""A second rater, written from the rules and not from the code: event by event, in Fractions; and random cases for both.

A case's price list is plain data, which `toml_of` writes as an operator would; the reference reads the data itself.
"""

import json
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from hypothesis import strategies as st

from roost_platform.billing.lines import MeteredUsage
from roost_platform.billing.months import parse_month
from roost_platform.domain.meters import CALL_METERS, Meter

MONTH = parse_month("2026-11")
INSTANT = timedelta(microseconds=1)
DIGITS = {"JPY": 0, "EUR": 2, "KWD": 3}
GIB_HOUR = 2**30 * 3600
SKUS = {
    # sku: (meter, base units the price is for, base units of a bound or an allowance, by resource class)
    "requests": ("requests", 10**6, 1, False),
    "compute_seconds": ("compute", 10**6, 10**6, False),
    "inferences": ("inferences", 1000, 1, False),
    "bytes_in": ("bytes_in", 2**30, 1, False),
    "bytes_out": ("bytes_out", 2**30, 1, False),
    "setup_seconds": (None, 10**6, 10**6, True),
    "active_seconds": ("active", 10**6, 10**6, True),
    "idle_seconds": ("idle", 10**6, 10**6, True),
    "reserved_seconds": ("reserved", 10**6, 10**6, True),
    "cold_starts": ("cold_starts", 1000, 1, False),
    "storage": ("storage", GIB_HOUR, GIB_HOUR, False),
    "check_seconds": ("check", 10**6, 10**6, False),
}


def reference(case, usage):
    """What `rate` answers, as a Counter of tuples."""
    lines = defaultdict(lambda: [0, Fraction(0), Fraction(0)])
    charged = list(charged_events(case, usage, lines))
    totals, seen = Counter(), Counter()
    for _, _, sku, variant, quantity, *_ in charged:
        totals[sku, variant] += quantity
    for start, model, sku, variant, left, paid, listed, free, version in sorted(charged, key=lambda event: event[:4]):
        _, per, count, _ = SKUS[sku]
        while left:  # as many units at once as cost the same
            unit, unit_of_sku, total = seen[sku, variant] + 1, seen[sku] + 1, totals[sku, variant]
            tier, bound, price = tier_of(paid, unit, total, count)
            list_tier, list_bound, list_price = tier_of(listed, unit, total, count)
            ends = [b - unit + 1 for b in (bound, list_bound) if b]
            is_free = unit_of_sku <= free * count
            units = min(left, *ends, free * count - unit_of_sku + 1 if is_free else left)
            for sign, kind in ((1, "usage"), (-1, "credit"))[: 1 + is_free]:
                line = lines[model, sku, variant, version, start, tier, list_tier, kind]
                line[0] += sign * units
                line[1] += sign * units * Fraction(price) / per
                line[2] += sign * units * Fraction(list_price) / per
            seen.update({(sku, variant): units, sku: units})
            left -= units  # noqa: PLW2901 - what is left of this event
    return Counter(
        (*key[:6], key[7], quantity, *(half_even(exact, DIGITS[case["currency"]]) for exact in amounts))
        for key, (quantity, *amounts) in lines.items()
        if quantity
    )


def charged_events(case, usage, lines):
    """Each event that costs something with its prices; calls that cost nothing are put on their lines."""
    books, terms = case["book"], case.get("tenant", [])
    cuts = {MONTH.start} | {t[end] for t in books + terms for end in ("effective_from", "until") if t.get(end)}
    for piece in usage:
        start = max(cut for cut in cuts if MONTH.start <= cut <= piece.start)
        book = next((b for b in reversed(books) if b["effective_from"] <= start), None)
        agreed = next((t for t in reversed(terms) if t["effective_from"] <= start), {})
        if "until" in agreed and agreed["until"] <= start:
            agreed = {}
        copies = "shadow" if piece.meter in CALL_METERS and piece.variant == "shadow" else ""
        charged = ("ok", "model_error", "shadow" if book and book.get("shadow") == "charged" else "")
        if piece.meter in CALL_METERS and (book is None or piece.variant not in charged):
            if piece.meter == "requests":
                version = book["version"] if book else ""
                lines[piece.model, "not_charged", copies, version, start, 0, 0, "usage"][0] += piece.quantity
            continue
        sku = next((sku for sku in SKUS if book and piece.meter == meter_of(sku, book)), None)
        variant = piece.variant if sku and SKUS[sku][3] else copies
        own, listed = (
            price_for(agreed.get("prices", {}), sku, variant),
            price_for(book["prices"] if sku else {}, sku, variant),
        )
        if sku and (own or listed):
            paid = own or discounted(listed, Fraction(agreed.get("discount", "0%")[:-1]) / 100)
            free = agreed.get("free", {}).get(sku, book["free"].get(sku, 0))
            yield start, piece.model, sku, variant, piece.quantity, paid, listed or own, free, book["version"]


def meter_of(sku, book):
    return (
        {"platform": None, "load": "load", "all": "setup"}[book["cold_start"]]
        if sku == "setup_seconds"
        else SKUS[sku][0]
    )


def price_for(prices, sku, variant):
    found = prices.get(sku, {})
    return found.get(variant) or found.get("*")


def discounted(tiers, share):
    return [(mode, up_to, Fraction(price) * (1 - share)) for mode, up_to, price in tiers]


def tier_of(tiers, unit, total, count):
    """Number, last unit (None: no end) and price of the tier that this unit costs by."""
    mode = tiers[0][0]
    asked = total if mode == "volume" else unit
    for number, (_, up_to, price) in enumerate(tiers, start=1):
        if up_to is None or asked <= up_to * count:
            bound = None if up_to is None or mode == "volume" else up_to * count
            return (0 if mode == "flat" else number), bound, price
    raise AssertionError("the last tier has no end")


def half_even(exact, digits):
    scaled = exact * 10**digits
    whole, rest = divmod(scaled.numerator, scaled.denominator)
    twice = 2 * rest
    up = twice > scaled.denominator or (twice == scaled.denominator and whole % 2 == 1)
    return Fraction(whole + up, 10**digits)


def rated(lines):
    """Lines as the reference tells them."""
    return Counter(
        (
            *(line.model, line.sku, line.variant, line.price_book, line.start, line.tier, str(line.category)),
            *(line.quantity, Fraction(line.amount), Fraction(line.list_amount)),
        )
        for line in lines
    )


# Cases


def toml_of(case):
    """The price list as a file."""
    parts = [f"currency = {json.dumps(case['currency'])}"]
    for kind in ("book", "tenant"):
        for table in case.get(kind, ()):
            parts.append(f"[[{kind}]]")
            parts += [f"{name} = {_value(name, value)}" for name, value in table.items()]
    return "\n".join(parts)


def _value(name, value):
    if isinstance(value, datetime):
        return value.isoformat()
    if name == "prices":
        skus = (f"{sku} = {_by_class(by, classed=SKUS[sku][3])}" for sku, by in value.items())
        return f"{{ {', '.join(skus)} }}"
    if name == "free":
        return f"{{ {', '.join(f'{sku} = {count}' for sku, count in value.items())} }}"
    return json.dumps(value)


def _by_class(by, *, classed):
    if not classed:
        return _tiers(by["*"])
    return f"{{ {', '.join(f'{json.dumps(name)} = {_tiers(tiers)}' for name, tiers in by.items())} }}"


def _tiers(tiers):
    if tiers[0][0] == "flat":
        return json.dumps(tiers[0][2])
    bounds = (f"{{ up_to = {up_to}, price = {json.dumps(price)} }}" for _, up_to, price in tiers[:-1])
    return (
        f'{{ mode = "{tiers[0][0]}", tiers = [{", ".join([*bounds, f"{{ price = {json.dumps(tiers[-1][2])} }}"])}] }}'
    )


_NUMBERS = st.one_of(
    st.integers(0, 3000).map(str),
    st.integers(0, 10**12 - 1).map(lambda n: f"0.{n:012d}"),
    st.decimals(0, 900, places=3).map(lambda d: f"{d:f}"),
)


@st.composite
def _a_price(draw, most):
    mode = draw(st.sampled_from(["flat", "graduated", "volume"]))
    if mode == "flat":
        return [("flat", None, draw(_NUMBERS))]
    bounds = sorted(draw(st.sets(st.integers(1, most), max_size=3)))
    return [(mode, bound, draw(_NUMBERS)) for bound in [*bounds, None]]


@st.composite
def _price_tables(draw, *, least=()):
    skus = draw(st.sets(st.sampled_from(list(SKUS)), max_size=5)) | set(least)
    prices = {}
    for sku in sorted(skus):
        price = _a_price(most=40)
        classes = st.dictionaries(st.sampled_from(["cpu-1", "gpu-1", "*"]), price, min_size=1)
        prices[sku] = draw(classes) if SKUS[sku][3] else {"*": draw(price)}
    return prices


@st.composite
def cases(draw):
    """A price list: up to three books and three terms of the tenant, which change at any moment."""
    moments = st.integers(-5 * 86400, 30 * 86400).map(lambda s: MONTH.start + timedelta(seconds=s, microseconds=s % 7))
    zones = st.sampled_from(
        [UTC, *(datetime.fromisoformat(f"2026-01-01T00:00:00{o}").tzinfo for o in ("+05:30", "-09:00"))]
    )
    starts = sorted(draw(st.sets(moments, min_size=1, max_size=3)))
    books = []
    for i, start in enumerate(starts):
        prices = draw(_price_tables(least=["requests"]))
        free = draw(st.dictionaries(st.sampled_from(sorted(prices)), st.integers(0, 60), max_size=3))
        cold = draw(st.sampled_from(["platform", "load", "all"]))
        told = start.astimezone(draw(zones))
        book = {"version": f"v{i}", "effective_from": told, "cold_start": cold, "prices": prices, "free": free}
        books.append(book | draw(st.sampled_from([{}, {"shadow": "free"}, {"shadow": "charged"}])))
    edges = sorted(draw(st.sets(moments, max_size=4)))
    terms = []
    for i in range(0, len(edges), 2):
        more = {"until": edges[i + 1]} if i + 1 < len(edges) and draw(st.booleans()) else {}
        prices = draw(_price_tables())
        free = draw(st.dictionaries(st.sampled_from(list(SKUS)), st.integers(0, 60), max_size=2))
        off = draw(st.decimals(0, 100, places=4)).normalize()
        terms.append(
            {
                "name": "acme",
                "effective_from": edges[i],
                **more,
                "discount": f"{off:f}%",
                "prices": prices,
                "free": free,
            }
        )
    return {"currency": draw(st.sampled_from(list(DIGITS))), "book": books, "tenant": terms}


@st.composite
def _pieces(draw):
    meter = draw(st.sampled_from(Meter))
    calls = ["ok", "model_error", "throttled", "client_error", "shadow"]
    variant = draw(st.sampled_from(calls if meter in CALL_METERS else ["cpu-1", "cpu-2", "gpu-1"]))
    seconds = draw(st.integers(0, 30 * 86400 - 1))
    start = MONTH.start + timedelta(seconds=seconds, microseconds=seconds % 7)
    unit = next((count for of, _, count, _ in SKUS.values() if of == meter), 10**6)
    quantity = draw(st.one_of(st.integers(0, 50).map(lambda n: n * unit), st.integers(0, 60 * unit)))
    return MeteredUsage(draw(st.sampled_from(["a", "b", "c"])), meter, variant, start, start + INSTANT, quantity)


usages = st.lists(_pieces(), max_size=25)
