"""Alerts over HTTP to a real server that takes them, fails, hangs, redirects, or is not there: told at least once, as the same event."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from free_ports import free_port
from gateway_parts import NOON, Parts, gateway_parts, until
from roost_gateway.money.alerts import AlertDelivery, Webhook
from roost_gateway.money.budgets import Budgets
from roost_platform.billing.budget_store import alerts_of
from roost_platform.billing.budgets import Alert, Budget
from roost_platform.billing.months import Month, month_of

SOURCE = "https://roost.example/api/v1/budget"


@dataclass
class Receiver:
    """Answers in turn as `answers` say, the last one for ever: a status, a head, `hang`, or `close`."""

    url: str = ""
    answers: list[str] = field(default_factory=lambda: ["204 No Content"])
    heard: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        return [body["id"] for _, _, body in self.heard]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            body = json.loads(await reader.readexactly(int(headers["content-length"])))
            self.heard.append((head[0], headers, body))
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if answer == "hang":
                await reader.read()
            elif answer != "close":
                writer.write(f"HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?token=s3cret"
    yield made
    server.close()


@pytest.fixture
async def parts(tmp_path: Path, each_database: str) -> AsyncIterator[Parts]:
    async with gateway_parts(tmp_path) as made:
        await made.add_tenant("acme")
        yield made


async def spend(parts: Parts, spent: str, *, tells: bool = True) -> Budgets:
    """What acme spends of its 10.00."""

    async def said(tenant: str, month: Month) -> Decimal:
        return Decimal(spent)

    budgets = parts.budgets(spent=said, tells=tells)
    await budgets.put(
        Budget(
            tenant="acme",
            amount=Decimal("10.00"),
            currency="USD",
            thresholds=(50, 100),
            hard_cap=False,
            changed_at=NOON,
        )
    )
    return budgets


@asynccontextmanager
async def delivering(parts: Parts, budgets: Budgets, url: str, **how: Any) -> AsyncIterator[AlertDelivery]:
    webhook = Webhook(url, source=SOURCE, timeout_s=how.pop("timeout_s", 5.0))
    given = {"leads": lambda: True, "clock": parts.clock} | how
    yield AlertDelivery(
        database=parts.database, webhook=webhook, figures=budgets.figures, alerted=budgets.alerted, **given
    )
    await webhook.close()


async def alerts(parts: Parts) -> list[Alert]:
    return await parts.database.read(alerts_of, "acme", month_of(NOON))


async def test_an_alert_is_a_cloudevent_that_is_told_once_when_it_is_taken(parts: Parts, receiver: Receiver):
    budgets = await spend(parts, "5.04")
    async with delivering(parts, budgets, receiver.url) as delivery:
        for _ in range(3):
            await delivery.deliver()
            parts.clock.move(days=1)
    ((line, headers, body),) = receiver.heard
    assert line == "POST /hook?token=s3cret HTTP/1.1"
    assert headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert body == {
        "specversion": "1.0",
        "id": "acme/2026-11/10.00/50",
        "source": SOURCE,
        "type": "io.roost.budget.alert.v1",
        "subject": "tenant/acme",
        "time": "2026-11-03T12:00:00+00:00",
        "datacontenttype": "application/json",
        "data": {
            "tenant": "acme",
            "month": "2026-11",
            "threshold_percent": 50,
            "budget": "10.00",
            "spent": "5.04",
            "currency": "USD",
        },
    }
    (alert,) = await alerts(parts)
    assert (alert.delivered_at, alert.next_try_at, alert.tries) == (NOON, None, 1)


async def test_an_alert_is_sent_again_until_it_is_taken_later_and_later_and_over_a_restart(
    tmp_path: Path, each_database: str, receiver: Receiver, caplog: pytest.LogCaptureFixture
):
    receiver.answers = ["500 Oops", "302 Found\r\nlocation: /elsewhere", "404 Not Here", "close", "hang", "200 OK"]
    async with gateway_parts(tmp_path) as parts:
        await parts.add_tenant("acme")
        budgets = await spend(parts, "5.04")
        async with delivering(parts, budgets, receiver.url, timeout_s=0.3) as delivery:
            for pause_s in (1, 2, 4):
                await delivery.deliver()
                parts.clock.move(seconds=pause_s - 0.001)
                await delivery.deliver()  # too soon
                parts.clock.move(seconds=0.001)
        assert len(receiver.heard) == 3
        assert budgets.figures.failed_deliveries == 3
    async with gateway_parts(tmp_path) as parts:
        parts.clock.move(seconds=7)
        budgets = parts.budgets()
        async with delivering(parts, budgets, receiver.url, timeout_s=0.3) as delivery:
            for pause_s in (8, 16, 32, 64):
                await delivery.deliver()
                parts.clock.move(seconds=pause_s)
        (alert,) = await alerts(parts)
        assert (alert.tries, alert.next_try_at) == (6, None)
        assert alert.delivered_at is not None
    assert receiver.ids == ["acme/2026-11/10.00/50"] * 6
    assert len({json.dumps(body) for _, _, body in receiver.heard}) == 1, "the same event to the last letter"
    assert {line.split()[1] for line, _, _ in receiver.heard} == {"/hook?token=s3cret"}, "no redirect is followed"
    told = [record for record in caplog.records if record.message == "budget_alert_not_delivered"]
    reasons = [record.reason for record in told]  # type: ignore[attr-defined]
    assert reasons == [
        "answered 500",
        "answered 302",
        "answered 404",
        "RemoteProtocolError",
        "no answer in time",
    ]
    ours = [record for record in caplog.records if record.name.startswith("roost")]
    assert not [record for record in ours if "s3cret" in str(record.__dict__)], "the URL may hold a secret"


@pytest.mark.sqlite
async def test_a_crash_after_it_was_taken_and_before_that_is_written_tells_it_twice_as_one_event(
    parts: Parts, receiver: Receiver
):
    """At least once: who receives it knows it by its id."""
    await spend(parts, "5.04")
    webhook = Webhook(receiver.url, source=SOURCE)
    (alert,) = await alerts(parts)
    assert await webhook.send(alert) is None  # and here the gateway dies
    await webhook.close()
    async with delivering(parts, parts.budgets(), receiver.url) as delivery:
        await delivery.deliver()
    assert len(receiver.heard) == 2
    assert receiver.heard[0][2] == receiver.heard[1][2]


@pytest.mark.sqlite
async def test_one_alert_that_is_never_taken_holds_up_no_other(parts: Parts, receiver: Receiver):
    receiver.answers = ["400 Never", "204 No Content"]
    budgets = await spend(parts, "10.00")
    async with delivering(parts, budgets, receiver.url) as delivery:
        await delivery.deliver()
        states = sorted(alert.delivered_at is not None for alert in await alerts(parts))
        assert states == [False, True]
        parts.clock.move(seconds=1)
        await delivery.deliver()
    assert all(alert.delivered_at is not None for alert in await alerts(parts))


async def test_the_loop_tells_at_once_while_it_leads_and_outlasts_a_receiver_that_is_not_there(
    parts: Parts, receiver: Receiver
):
    budgets = await spend(parts, "5.04")
    leading, asked = [False], []
    nowhere = f"http://127.0.0.1:{free_port()}/"
    leads = lambda: asked.append(1) or leading[0]  # noqa: E731
    async with delivering(parts, budgets, nowhere, leads=leads, interval_s=0.01) as delivery:
        looping = asyncio.create_task(delivery.run())
        await until(lambda: len(asked) > 3)
        assert budgets.figures.failed_deliveries == 0, "another one leads"
        leading[0] = True
        await until(lambda: budgets.figures.failed_deliveries == 1)
        looping.cancel()
        await asyncio.gather(looping, return_exceptions=True)
    parts.clock.move(minutes=1)
    async with delivering(parts, budgets, receiver.url, interval_s=60) as delivery:
        looping = asyncio.create_task(delivery.run())
        await until(lambda: len(receiver.heard) == 1)
        budgets.alerted.clear()
        again = parts.budgets(spent=_of("10.00"), tells=True)
        again.alerted = budgets.alerted
        await again.look()
        await until(lambda: len(receiver.heard) == 2)  # long before the next minute
        looping.cancel()
        await asyncio.gather(looping, return_exceptions=True)
    assert receiver.ids == ["acme/2026-11/10.00/50", "acme/2026-11/10.00/100"]


@pytest.mark.sqlite
async def test_alerts_of_a_time_in_which_nobody_wanted_to_be_told_are_not_told_later(parts: Parts, receiver: Receiver):
    budgets = await spend(parts, "5.04", tells=False)
    async with delivering(parts, budgets, receiver.url) as delivery:
        await delivery.deliver()
    assert receiver.heard == []
    assert [alert.threshold for alert in await alerts(parts)] == [50]


def _of(spent: str):
    async def said(tenant: str, month: Month) -> Decimal:
        return Decimal(spent)

    return said
