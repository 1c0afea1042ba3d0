"""Whoever watches the gateway: told of each request, and of how the parts stand.

In: exchanges, as they begin and end. Out: metrics and spans of them. Invariant: what is open is
counted, and what is over is not (test_metrics_count_open_requests).
"""

from __future__ import annotations

from collections.abc import Callable

from ownweights.gateway.exchange import Exchange
from ownweights.gateway.settings import GatewaySettings
from ownweights.gateway.watch.lag import LoopLag
from ownweights.gateway.watch.metrics import Metrics
from ownweights.gateway.watch.spans import Spans, open_spans
from ownweights.gateway.watch.standing import Standing, StandingCollector
from ownweights.teacher.asgi import Scope


class Watch:
    """Metrics and spans of one gateway; `num_open` requests are being answered."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.metrics = Metrics()
        self.num_open = 0
        self._settings = settings
        self._lag = LoopLag(self.metrics.loop_lag.observe)
        self._spans: Spans | None = None

    def start(self, read: Callable[[], Standing]) -> None:
        """Begin. Raises: SettingsError where spans are asked for and cannot be made."""
        self._spans = open_spans(self._settings.otel_endpoint)
        self.metrics.read_from(StandingCollector(read))
        self.follow(self._settings)
        self._lag.start()

    def follow(self, settings: GatewaySettings) -> None:
        """Go on with other settings: teachers and their prices; where spans go stays."""
        self._settings = settings
        self.metrics.workloads.allow(settings.teacher_of)

    async def close(self) -> None:
        """End, and send the spans that are left."""
        await self._lag.close()
        if self._spans is not None:
            await self._spans.close()

    def began(self, exchange: Exchange, scope: Scope) -> None:
        """A request was read: from now on the upstream belongs to its span."""
        if self._spans is not None:
            self._spans.began(exchange, scope)

    def ended(self, exchange: Exchange, scope: Scope) -> None:
        """An exchange is over."""
        exchange.began_s = scope.get("own_began_s")
        exchange.held_s = scope.get("own_held_s", 0.0)
        is_teachers = exchange.served_by == "teacher"
        self.metrics.answered(exchange, cost_usd=exchange.cost_usd() if is_teachers else None)
        if self._spans is not None:
            self._spans.ended(exchange, self._settings.teachers.get(exchange.upstream))
