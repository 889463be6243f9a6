"""The parts that turn usage into money, put together: prices, statements, budgets, and the comparison of all that counts."""

from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

from roost_gateway.access.directory import Directory
from roost_gateway.holding import Holding
from roost_gateway.metering import Metering
from roost_gateway.money.alerts import AlertDelivery, Webhook
from roost_gateway.money.budgets import Budgets
from roost_gateway.money.closing import Closing
from roost_gateway.money.documents import Documents
from roost_gateway.money.month_figures import MonthFigures
from roost_gateway.money.overview import Overview, make_overview
from roost_gateway.money.reconcile import Reconciliation, run_of
from roost_gateway.money.spending import Spending
from roost_gateway.money.statements import Statements
from roost_gateway.predict.figures import PredictFigures
from roost_gateway.settings import Settings
from roost_platform.billing.exports import Issuer
from roost_platform.billing.months import month_of
from roost_platform.billing.price_file import default_price_books, load_price_books
from roost_platform.billing.price_store import record_prices
from roost_platform.billing.prices import PriceBooks
from roost_platform.database.connection import Database
from roost_platform.domain.errors import RoostError


class Charging:
    """One run of a gateway. Only the one that leads does the loops' work."""

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        directory: Directory,
        metering: Metering,
        holding: Holding,
        answered: PredictFigures,
        leads: Callable[[], bool],
        clock: Callable[[], datetime],
    ) -> None:
        """Raises RoostError, or OSError, for a price file that cannot be used."""
        self.books = _price_books(settings)
        self._settings = settings
        self._database = database
        self._leads = leads
        self._clock = clock
        self._shippers = (metering.shipper, holding.shipper)
        self.budgets = Budgets(
            database=database,
            directory=directory,
            spent=Spending(database=database, books=self.books),
            currency=self.books.currency,
            leads=leads,
            clock=clock,
            interval_s=settings.budgets.interval_s,
            tells=settings.budgets.webhook is not None,
        )
        self.statements = Statements(database=database, books=self.books, drain=self.drain, clock=clock)
        self.documents = Documents(Issuer(**settings.issuer.model_dump()))
        self._closing = Closing(
            database=database,
            statements=self.statements,
            source=metering.journal.source,
            drain=self.drain,
            leads=leads,
            clock=clock,
        )
        self.reconciliation = Reconciliation(
            database=database,
            journal=settings.data / "journal",
            outbox=settings.data / "outbox",
            books=self.books,
            run=run_of(metering.journal, answered),
            drain=self.drain,
            clock=clock,
        )
        self._month = MonthFigures(
            directory=directory, overview=self._overview, leads=leads, interval_s=settings.month_interval_s
        )
        self.figures = (self.budgets.figures, self._closing.figures, self._month)

    async def drain(self) -> None:
        """Bring all that this gateway has metered to the database. Raises Unavailable or StorageFull."""
        for shipper in self._shippers:
            await shipper.drain()

    async def start(self) -> None:
        """Write down what is in force. Raises Conflict for a price file that changed that, Unavailable."""
        await self._database.write(record_prices, self.books, now=self._clock())

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        return [self.budgets.run(), self._closing.run(), self._month.run(), *self._telling()]

    async def _overview(self) -> Overview:
        """Of the running month, as the ledger has it. Raises Unavailable."""
        month = month_of(self._clock())
        return await make_overview(
            month, database=self._database, books=self.books, statement_of=self.statements.current
        )

    def _telling(self) -> list[Coroutine[Any, Any, None]]:
        """The loop that delivers alerts, where somebody wants to be told."""
        webhook = self._settings.budgets.webhook
        if webhook is None:
            return []
        delivery = AlertDelivery(
            database=self._database,
            webhook=Webhook(webhook.get_secret_value(), source=f"{self._settings.public_url or ''}/api/v1/budget"),
            figures=self.budgets.figures,
            alerted=self.budgets.alerted,
            leads=self._leads,
            clock=self._clock,
        )
        return [delivery.run()]


def _price_books(settings: Settings) -> PriceBooks:
    if settings.prices is None:
        return default_price_books()
    try:
        return load_price_books(settings.prices.read_text("utf-8"))
    except UnicodeDecodeError as error:
        raise RoostError(f"ROOST_PRICES: {settings.prices} is not a text file") from error
