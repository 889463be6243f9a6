"""What looks at calls after they were answered: drift, shadows and the evidence of rollouts, made for one gateway."""

from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

from roost_gateway.access.directory import Directory
from roost_gateway.deployments.deployments import Deployments
from roost_gateway.drift.drift import Drift
from roost_gateway.money.alerts import Webhook
from roost_gateway.predict.figures import PredictFigures
from roost_gateway.predict.taps import Taps
from roost_gateway.rollouts.rollouts import Rollouts
from roost_gateway.rollouts.telling import Telling
from roost_gateway.settings import Settings
from roost_gateway.shadowing.shadows import Shadows
from roost_platform.database.connection import Database
from roost_platform.engines.port import Engine
from roost_platform.metering.journal import Journal


class Tapping:
    """Its loops are to be run; `close` ends what they leave behind."""

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        directory: Directory,
        deployments: Deployments,
        engine: Engine,
        journal: Journal,
        answered: PredictFigures,
        taps: Taps,
        leads: Callable[[], bool],
        clock: Callable[[], datetime],
    ) -> None:
        self.drift = Drift(settings.drift, database=database, directory=directory, taps=taps, leads=leads, clock=clock)
        self.shadows = Shadows(
            database=database,
            deployments=deployments,
            engine=engine,
            journal=journal,
            answered=answered,
            taps=taps,
            known=lambda key: directory.route(key.tenant, key.model) is not None,
        )
        self._telling: Telling | None = None
        if settings.rollouts.webhook is not None:
            source = f"{settings.public_url or ''}/api/v1/models"
            webhook = Webhook(settings.rollouts.webhook.get_secret_value(), source=source)
            self._telling = Telling(database=database, webhook=webhook, source=source, leads=leads, clock=clock)
        self.rollouts = Rollouts(
            database=database,
            deployments=deployments,
            taps=taps,
            mirrors=self.shadows,
            leads=leads,
            clock=clock,
            told=None if self._telling is None else self._telling.rung,
            interval_s=settings.rollouts.interval_s,
        )
        self.figures = self.drift.figures, self.shadows.figures

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        telling = [] if self._telling is None else [self._telling.run()]
        return [*self.drift.loops(), self.shadows.run(), self.rollouts.run(), *telling]

    def close(self) -> None:
        self.shadows.stop()
        self.drift.stop()
