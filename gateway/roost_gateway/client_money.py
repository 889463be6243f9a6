"""The client's calls about use and money: reports, statements, and what the operator asks."""

import json

from roost_gateway.client_transport import Document, Transport, given, path_of

_RATING_TIMEOUT_S = 300.0  # a month of every tenant, twice
_RECONCILE_TIMEOUT_S = 900.0  # every event of a month is looked at


class MoneyCalls(Transport):
    """Amounts of money are decimal strings in all documents."""

    def prices(self) -> Document:
        """The prices in force: to a tenant's key, what that tenant pays."""
        return self._json("GET", "/api/v1/prices")

    def what_if(self, prices: str, month: str) -> Document:
        """What `month` would have cost with this price list (TOML), of all tenants or the client's; for the operator."""
        return self._json(
            "POST",
            "/api/v1/prices/what-if",
            params={"month": month},
            content=prices.encode,
            headers={"Content-Type": "text/plain; charset=utf-8"},
            read_timeout=_RATING_TIMEOUT_S,
        )

    def usage(
        self,
        *,
        start: str | None = None,
        end: str | None = None,
        model: str | None = None,
        group_by: str | None = None,
    ) -> Document:
        """What was metered in [start, end), ISO 8601; this month by default. `group_by`: any of model, version, outcome,
        class, day, hour, meter and, for the operator, tenant, with commas.
        """
        wanted = {"from": start, "to": end, "model": model, "group_by": group_by}
        return self._json("GET", "/api/v1/usage", params=given(wanted))

    def statements(self) -> Document:
        """All statements and notes of the tenant, without their lines."""
        return self._json("GET", "/api/v1/statements")

    def statement(self, month: str) -> Document:
        """The statement of `month` (YYYY-MM, UTC); amounts of money are decimal strings."""
        return self._json("GET", path_of("statements", month))

    def statement_file(self, month: str, form: str) -> bytes:
        """The same as a file: `json`, `csv`, `html`, `pdf`, `focus` or `cloudevents`."""
        return self._send("GET", path_of("statements", month), params={"format": form}).content

    def statement_events(self, month: str, line: int, *, limit: int = 100, after: str | None = None) -> Document:
        """What is behind a line, counted from 1; `after` is what the last answer said comes `next`."""
        path = path_of("statements", month, "lines", str(line), "events")
        return self._json("GET", path, params=given({"limit": limit, "after": after}))

    def finalize_statement(self, month: str) -> Document:
        """Make it final, as the operator."""
        return self._json("POST", path_of("statements", month, "finalize"))

    def add_note(self, statement: str, *, kind: str, amount: str, reason: str) -> Document:
        """A `credit` or a `debit` note for a final statement, as the operator; `amount` is a decimal string over 0."""
        body = {"kind": kind, "amount": amount, "reason": reason}
        return self._json("POST", path_of("statements", statement, "notes"), json=body)

    def mark_statement(self, statement: str, *, state: str, note: str = "") -> Document:
        """Write down that a final statement is `paid` or `void`, as the operator."""
        return self._json("POST", path_of("statements", statement, "marks"), json={"state": state, "note": note})

    def money(self, month: str | None = None, *, limit: int | None = None) -> Document:
        """All tenants' month at a glance, as the operator: amounts, idle costs, top models; this month by default."""
        return self._json("GET", "/api/v1/money", params=given({"month": month, "limit": limit}))

    def reconciliation(self, *, start: str | None = None, end: str | None = None) -> Document:
        """Whether counters, journal, ledger and statements say the same of [start, end), as the operator."""
        params = given({"from": start, "to": end})
        return self._json("GET", "/api/v1/reconciliation", params=params, read_timeout=_RECONCILE_TIMEOUT_S)

    def budget(self) -> Document:
        """The tenant's budget: what is spent of it this month, where that leads, and the alerts raised so far."""
        return self._json("GET", "/api/v1/budget")

    def set_budget(self, amount: str, *, thresholds: list[int] | None = None, hard_cap: bool = False) -> Document:
        """Set the tenant's budget for each month, as the operator. `amount`: a decimal string; `thresholds`: percents."""
        body = given({"amount": amount, "thresholds": thresholds}) | {"hard_cap": hard_cap}
        return self._json("PUT", "/api/v1/budget", json=body)

    def clear_budget(self) -> None:
        """Remove the tenant's budget, as the operator."""
        self._send("DELETE", "/api/v1/budget")

    def correct_usage(self, events: Document | list[Document]) -> Document:
        """Add corrections of usage, as the operator: one CloudEvent, or a list of which all are taken or none."""
        kind = "application/cloudevents-batch+json" if isinstance(events, list) else "application/cloudevents+json"
        body = json.dumps(events).encode()
        headers = {"Content-Type": kind}
        return self._json("POST", path_of("usage", "corrections"), content=lambda: body, headers=headers)

    def corrections(self, *, start: str | None = None, end: str | None = None, offset: int = 0) -> Document:
        """Up to 100 corrections whose time is in [start, end), ISO 8601, after the first `offset`; this month by default."""
        wanted = {"from": start, "to": end, "offset": offset}
        return self._json("GET", path_of("usage", "corrections"), params=given(wanted))
