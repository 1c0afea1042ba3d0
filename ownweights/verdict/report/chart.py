"""Lines and bands as SVG text: what the report page draws, without a script.

In: series of points in the units of the axes. Out: one `<svg>` element. Invariant: every point lies
inside the frame, and infinite or missing ones are left out (test_chart_stays_inside_its_frame).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 280
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 14, 40
NUM_TICKS = 5
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Series:
    """One line (or, with `low` and `high`, one band) and what the legend calls it."""

    name: str
    kind: str  # a CSS class: line, band, limit, mark
    points: Points


@dataclass(frozen=True, slots=True)
class Axes:
    """What the axes say, and how far they go."""

    x_name: str
    y_name: str
    x_max: float
    y_max: float
    y_min: float = 0.0

    def place(self, x: float, y: float) -> tuple[float, float]:
        """A point of the picture, never outside the frame."""
        across = min(max(x / self.x_max, 0.0), 1.0) if self.x_max > 0 else 0.0
        height = self.y_max - self.y_min
        up = min(max((y - self.y_min) / height, 0.0), 1.0) if height > 0 else 0.0
        return (
            LEFT + across * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM),
        )


def draw_chart(axes: Axes, series: Sequence[Series], *, title: str) -> str:
    """The chart; `title` is read out to who cannot see it."""
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        *_frame(axes),
        *(_drawn(axes, one) for one in series if _finite(one.points)),
        "</svg>",
    ]
    return "\n".join(parts)


def _drawn(axes: Axes, one: Series) -> str:
    places = [axes.place(x, y) for x, y in _finite(one.points)]
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    name = f"<title>{escape(one.name)}</title>"
    if one.kind == "mark":
        x, y = places[0]
        return f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="5">{name}</circle>'
    tag = "polygon" if one.kind == "band" else "polyline"
    return f'<{tag} class="{one.kind}" points="{text}">{name}</{tag}>'


def _frame(axes: Axes) -> list[str]:
    """Grid lines with their numbers, and the names of the axes."""
    parts: list[str] = []
    for index in range(NUM_TICKS + 1):
        x = axes.x_max * index / NUM_TICKS
        y = axes.y_min + (axes.y_max - axes.y_min) * index / NUM_TICKS
        across, bottom = axes.place(x, axes.y_min)
        left, up = axes.place(0.0, y)
        parts += [
            f'<line class="grid" x1="{left}" x2="{WIDTH - RIGHT}" y1="{up:.1f}" y2="{up:.1f}"/>',
            f'<text x="{left - 6}" y="{up + 4:.1f}" text-anchor="end">{_number(y)}</text>',
            f'<text x="{across:.1f}" y="{bottom + 16}" text-anchor="middle">{_number(x)}</text>',
        ]
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts += [
        f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(axes.x_name)}</text>',
        f'<text transform="translate(12 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(axes.y_name)}</text>",
    ]
    return parts


def _finite(points: Points) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"
