"""CloudEvents 1.0: a statement as an event for other systems, one per statement, with the whole document as its data.

One, not one per line: a bill is taken as a whole or not at all, and its total can be checked against its lines at once.
`source` and `id` are the same whenever the event is made again, and another event's for no other content: a final
statement or a note never changes, and the id of one that still may carries a hash of what it says.
"""

import hashlib
from typing import Any

from roost_platform.billing.exports.issuer import Issuer
from roost_platform.billing.exports.json import canonical, encoded, to_json
from roost_platform.billing.statements import Kind, Statement, Status

_FINAL = {
    Kind.STATEMENT: "io.roost.statement.finalized.v1",
    Kind.CREDIT_NOTE: "io.roost.statement.credit_note.issued.v1",
    Kind.DEBIT_NOTE: "io.roost.statement.debit_note.issued.v1",
}
_RUNNING = "io.roost.statement.computed.v1"
"""Of what is not final: the figures as they are now."""


def to_cloudevent(statement: Statement, *, issuer: Issuer) -> dict[str, Any]:
    """The JSON form of the event."""
    final = statement.status is Status.FINAL
    digest = hashlib.sha256(canonical(statement)).hexdigest()
    return {
        "specversion": "1.0",
        "id": statement.id if final else f"{statement.id}/{digest[:32]}",
        "source": issuer.event_source,
        "type": _FINAL[statement.kind] if final else _RUNNING,
        "subject": f"tenants/{statement.tenant}",
        "time": statement.made_at.isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": to_json(statement),
    }


def to_cloudevents(*statements: Statement, issuer: Issuer) -> bytes:
    """The JSON batch form: an array."""
    return encoded([to_cloudevent(statement, issuer=issuer) for statement in statements])
