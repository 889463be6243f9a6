"""Statements as documents: what they say of who issues them, and how many are set at once."""

import asyncio

from roost_platform.billing.exports import Form, Issuer, Rendered, render
from roost_platform.billing.statements import Statement


class Documents:
    """A PDF takes a process, a core and up to seconds: one is set at a time, whoever asks; others wait for their turn."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._setting = asyncio.Semaphore(1)

    async def render(self, statement: Statement, form: Form) -> Rendered:
        """Raises what `billing.exports.render` does."""
        if form is not Form.PDF:
            return await asyncio.to_thread(render, statement, form, issuer=self._issuer)
        async with self._setting:
            return await asyncio.to_thread(render, statement, form, issuer=self._issuer)
