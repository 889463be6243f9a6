"""From a request's headers to the principal it acts as.

Every refusal has one sentence, whatever was wrong, and nothing about a secret is compared byte by byte: it is hashed,
and the hash is looked up. Accepted headers are remembered, so that a busy client costs one dictionary look-up.
"""

import hmac
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from urllib.parse import parse_qsl, unquote_plus

from sqlalchemy import Connection, and_, bindparam, or_, update

from roost_gateway.access.directory import Directory
from roost_gateway.access.principals import Principal
from roost_platform.database.connection import Database
from roost_platform.database.tables import api_keys
from roost_platform.domain.errors import InvalidRequest, Unauthenticated
from roost_platform.domain.tenants import KEY_PREFIX, ApiKey, Scope, granted, hash_secret

_REMEMBERED = 10_000
"""Headers kept; the memory is emptied when full, which costs each live client one hash."""
_WRITE_EVERY = timedelta(minutes=1)
_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([!-~]{1,512}) *")
_SECRET_IN_URL = re.compile(KEY_PREFIX + r"[0-9A-Za-z]{16}")

_OPERATOR = Principal(operator=True, tenant="", scopes=frozenset(Scope), key_id="operator")


class Authenticator:
    """Identifies callers by `Authorization: Bearer <key>`."""

    def __init__(
        self, *, directory: Directory, database: Database, operator_key_hash: bytes, clock: Callable[[], datetime]
    ) -> None:
        """`operator_key_hash` is the SHA-256 of the operator's key; empty bytes = there is none. `clock` gives aware times."""
        self._directory = directory
        self._database = database
        self._operator_key_hash = operator_key_hash
        self._clock = clock
        self._remembered: dict[bytes, tuple[Principal, datetime | None]] = {}
        self._remembered_at = -1
        self._written: dict[str, datetime] = {}

    def identify(self, authorization: Sequence[bytes], query_string: bytes = b"") -> Principal:
        """The principal of a request, from the values of all its Authorization headers.

        Raises Unauthenticated with one sentence for every cause, InvalidRequest when `query_string` (as on the wire)
        carries a key: a URL ends up in logs and histories, so such a key must not work and should be replaced.
        """
        if query_string:
            self._refuse_key_in_url(query_string)
        if len(authorization) != 1:
            raise _unauthenticated()
        if self._remembered_at != self._directory.keys_changed:
            self._remembered.clear()
            self._remembered_at = self._directory.keys_changed
        header = authorization[0]
        now = self._clock()
        known = self._remembered.get(header)
        if known is None:
            known = self._look_up(header, now)
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            self._remembered[header] = known
        principal, expires_at = known
        if expires_at is not None and now >= expires_at:
            raise _unauthenticated()
        if not principal.operator:
            self._directory.mark_used(principal.key_id, now)
        return principal

    def _look_up(self, header: bytes, now: datetime) -> tuple[Principal, datetime | None]:
        match = _BEARER.fullmatch(header)
        digest = hash_secret(match[1].decode("ascii") if match else "")
        if hmac.compare_digest(digest, self._operator_key_hash):
            return _OPERATOR, None
        key = self._directory.key_for(digest)
        if key is None or not key.valid_at(now):
            raise _unauthenticated()
        return _principal(key), key.expires_at

    def _refuse_key_in_url(self, query_string: bytes) -> None:
        """A key of ours is known by its form wherever it stands; an operator's own is only found as a whole value."""
        query = query_string.decode("latin-1")
        if _SECRET_IN_URL.search(unquote_plus(query)) or any(
            hmac.compare_digest(hash_secret(text), self._operator_key_hash)
            for pair in parse_qsl(query)
            for text in pair
        ):
            raise InvalidRequest(
                "a key must not be in the URL, where logs keep it: send it as 'Authorization: Bearer <key>' "
                "and replace this one",
                code="key_in_url",
            )

    async def flush_last_used(self, *, final: bool = False) -> int:
        """Write when keys were last used, each at most once a minute (`final`: all of them); returns how many."""
        now = self._clock()
        due = {
            key_id: used
            for key_id, used in self._directory.uses()
            if used != self._written.get(key_id)
            and (final or key_id not in self._written or now - self._written[key_id] >= _WRITE_EVERY)
        }
        if due:
            await self._database.write(_write_last_used, due)
            self._written.update(due)
            self._written = {k: at for k, at in self._written.items() if self._directory.key_by_id(k) is not None}
        return len(due)


def _principal(key: ApiKey) -> Principal:
    return Principal(operator=False, tenant=key.tenant, scopes=granted(key.scopes), key_id=key.id)


def _unauthenticated() -> Unauthenticated:
    return Unauthenticated("a valid key is needed: send it as 'Authorization: Bearer <key>'")


def _write_last_used(connection: Connection, uses: dict[str, datetime]) -> None:
    """Forwards only: another gateway may have seen a key later."""
    last = api_keys.c.last_used_at
    older = and_(api_keys.c.id == bindparam("key_id"), or_(last.is_(None), last < bindparam("used")))
    statement = update(api_keys).where(older).values(last_used_at=bindparam("used"))
    connection.execute(statement, [{"key_id": key_id, "used": used} for key_id, used in uses.items()])
