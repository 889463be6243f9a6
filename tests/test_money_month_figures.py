"""The running month's money on the metrics page: the amounts of `GET /money`, told by the gateway that leads."""

import asyncio
from functools import partial

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway_parts import gateway_parts
from roost_gateway.metrics.page import make_page
from roost_gateway.money.month_figures import MonthFigures
from roost_gateway.money.overview import make_overview
from roost_platform.billing.months import parse_month
from roost_platform.billing.price_file import default_price_books
from roost_platform.domain.errors import Unavailable
from roost_platform.domain.services import ServiceKey
from test_money_overview import use

NOVEMBER = parse_month("2026-11")


def told(figures: MonthFigures) -> dict[str, float]:
    families = text_string_to_metric_families(make_page(figures)().decode())
    return {
        f"{sample.name.removeprefix('roost_month_')} {'/'.join(sample.labels.values())}": sample.value
        for family in families
        for sample in family.samples
    }


@pytest.mark.usefixtures("each_database")
async def test_the_amounts_are_those_of_the_operators_view(tmp_path):
    """A tenant that is gone has brought in what it has; a model that is gone is in its tenant's amount only."""
    async with gateway_parts(tmp_path) as parts:
        for key in (ServiceKey("acme", "iris"), ServiceKey("also", "iris")):
            await parts.add_tenant(key.tenant)
            await parts.serve(key)
        await use(parts)
        leads = [True]
        figures = MonthFigures(
            directory=parts.directory,
            overview=partial(
                make_overview,
                NOVEMBER,
                database=parts.database,
                books=default_price_books(),
                statement_of=parts.statements().current,
            ),
            leads=lambda: leads[0],
            interval_s=1,
        )
        assert told(figures) == {}
        await figures.look()
        assert told(figures) == {
            "revenue gone/USD": 6.0,
            "revenue acme/USD": 3.0,
            "revenue also/USD": 3.0,
            "idle_worth gone/USD": 0.0,
            "idle_worth acme/USD": 0.04,
            "idle_worth also/USD": 0.0,
            "idle_billed gone/USD": 0.0,
            "idle_billed acme/USD": 0.0,
            "idle_billed also/USD": 0.0,
            "model_revenue acme/iris/USD": 2.0,
            "model_revenue also/iris/USD": 3.0,
        }
        leads[0] = False
        await figures.look()
        assert told(figures) == {}


async def test_a_look_that_fails_is_not_the_last_one(tmp_path):
    looks = asyncio.Semaphore(0)

    async def overview():
        looks.release()
        raise Unavailable("the database is away")

    async with gateway_parts(tmp_path) as parts:
        figures = MonthFigures(directory=parts.directory, overview=overview, leads=lambda: True, interval_s=0.001)
        running = asyncio.create_task(figures.run())
        async with asyncio.timeout(30):
            for _ in range(3):
                await looks.acquire()
        running.cancel()
        assert told(figures) == {}
