"""A statement on a terminal: its lines, their prices, and the events behind them."""

from roost_gateway.cli import show
from roost_gateway.client import Document

_PER = {
    (1_000_000, "microseconds"): "second",
    (2**30, "bytes"): "GiB",
    (2**30 * 3600, "byte-seconds"): "GiB and hour",
}
_KEYS = ("source", "sequence", "id")


def show_statement(document: Document) -> None:
    currency = document["currency"]
    show.say(f"{document['id']}: {document['tenant']}, {document['month']} ({document['status']}), {currency}")
    show.table(
        ["LINE#", "MODEL", "ITEM", "FROM", "QUANTITY#", "PRICE", f"AMOUNT {currency}#"],
        (
            (
                number,
                line["model"] or "-",
                _item(line),
                line["from"][:10],
                quantity(line["quantity"], line["unit"]),
                price(line),
                line["amount"],
            )
            for number, line in enumerate(document["lines"], start=1)
        ),
        footer=["", "total", "", "", f"{document['charged_calls']:,} charged calls", "", document["total"]],
    )
    if document.get("unknown_calls"):
        show.say(
            f"{document['unknown_calls']:,} calls ended with their gateway, nobody knows how; they are not charged."
        )
    for note in document["notes"]:
        show.say(note)
    if document["lines"]:
        show.say(f"What is behind a line:  roost bill events {document['month']} LINE")


def _item(line: Document) -> str:
    """The sku, and what tells this line from others with the same one."""
    parts = [line["sku"], line.get("variant", "")]
    if line.get("tier"):
        parts.append(f"tier {line['tier']}")
    if line.get("category") == "credit":
        parts.append("(free allowance)")
    if line.get("month"):
        parts.append(f"(correction of {line['month']})")
    return " ".join(filter(None, parts))


def price(item: Document) -> str:
    """Of a line or of a price book's entry: both say `unit_price` per so many `unit`s."""
    if item["sku"] == "not_charged":
        return "not charged"
    named = _PER.get((item["per"], item["unit"]), f"{item['per']:,} {item['unit']}")
    return f"{item['unit_price']} per {named}"


def quantity(amount: int, unit: str) -> str:
    """Exact, in the unit that people know."""
    sign, amount = ("-" if amount < 0 else ""), abs(amount)
    if unit == "microseconds":
        return f"{sign}{amount // 10**6:,}.{amount % 10**6:06d} seconds"
    if unit == "byte-seconds":
        return f"{sign}{show.byte_hours(amount)}"
    return f"{sign}{amount:,} {unit}"


def show_events(document: Document, *, month: str, line: int) -> None:
    events = document["events"]
    if not events:
        show.say("No event is behind this line.")
        return
    # What no event has anything of, and the keys that only programs need, would make the table too wide to read.
    columns = list(dict.fromkeys(name for event in events for name, value in event.items() if value))
    columns = [name for name in columns if name not in _KEYS]
    show.table(
        [name.upper().replace("_", " ") for name in columns],
        ([_cell(event.get(name)) for name in columns] for event in events),
    )
    if document.get("next"):
        show.say(f"There are more:  roost bill events {month} {line} --after {document['next']}")


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return show.time(text) if text[10:11] == "T" else text
