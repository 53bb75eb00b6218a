"""Charts as SVG, made on the server: they need no script, scale with the page and follow light and dark by CSS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

_WIDTH, _HEIGHT = 640, 180
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 10, 24


def lines(
    series: Sequence[tuple[str, Sequence[float | None]]],
    labels: Sequence[str],
    title: str,
    unit: str = "",
    least_top: float = 1.0,
    from_zero: bool = True,
) -> Markup:
    """A line per series over shared places; None leaves a gap. ``labels`` (one a place) name the first, middle, last.

    The first series is filled, unless the axis begins near the smallest value (not ``from_zero``).
    Every place has its values as a tooltip, and the whole is described for screen readers.
    """
    count = len(labels)
    values = [value for _, row in series for value in row if value is not None and math.isfinite(value)]
    scale = _Scale.of(values, least_top, from_zero)
    parts = [_grid(scale, unit)]
    for number, (_, row) in enumerate(series):
        for run in _runs(row):
            points = " ".join(f"{_x(place, count):.1f},{scale.y(value):.1f}" for place, value in run)
            if number == 0 and from_zero and len(run) > 1:
                first, last = _x(run[0][0], count), _x(run[-1][0], count)
                base = _HEIGHT - _BOTTOM
                parts.append(f'<polygon class="area" points="{first:.1f},{base} {points} {last:.1f},{base}"/>')
            if len(run) > 1:
                parts.append(f'<polyline class="line s{number}" points="{points}"/>')
            else:
                place, value = run[0]
                parts.append(
                    f'<circle class="dot s{number}" cx="{_x(place, count):.1f}" cy="{scale.y(value):.1f}" r="3"/>'
                )
    parts.append(_places(series, labels, unit))
    parts.append(_axis(labels))
    legend = "".join(
        f'<li><span class="key s{number}"></span>{escape(name)}</li>' for number, (name, _) in enumerate(series)
    )
    said = "; ".join(f"{name}: {_last(row, unit)}" for name, row in series)
    return _svg(
        f'<figure class="chart"><figcaption>{escape(title)}'
        f"{f'<ul>{legend}</ul>' if len(series) > 1 else ''}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(f"{title}. Latest: {said}")}">'
        f"{''.join(parts)}</svg></figure>"
    )


def bars(rows: Sequence[tuple[str, float]], title: str, unit: str = "", digits: int = 0) -> Markup:
    """A horizontal bar per row, the longest filling the width."""
    top = max([value for _, value in rows], default=0.0) or 1.0
    parts = []
    for name, value in rows:
        width = 100.0 * max(value, 0.0) / top
        parts.append(
            f'<div class="bar"><dt>{escape(name)}</dt><dd>'
            '<svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
            f'<rect class="track" width="100" height="8"/><rect width="{width:.2f}" height="8"/></svg>'
            f"<span>{value:,.{digits}f}{escape(unit)}</span></dd></div>"
        )
    empty = '<p class="none">Nothing to show.</p>' if not rows else ""
    return _svg(
        f'<figure class="bars"><figcaption>{escape(title)}</figcaption><dl>{"".join(parts)}</dl>{empty}</figure>'
    )


def intervals(rows: Sequence[tuple[str, float, float, float]], title: str, digits: int = 4) -> Markup:
    """A dot within its interval per row (name, estimate, low, high), all on one axis that shows where 0 is."""
    values = [value for _, *row in rows for value in row if math.isfinite(value)]
    reach = max([abs(value) for value in values], default=0.0) or 1.0
    parts = []
    for name, estimate, low, high in rows:
        begin, middle, end = (50.0 + 48.0 * min(max(value / reach, -1.0), 1.0) for value in (low, estimate, high))
        side = "above" if low > 0 else "below" if high < 0 else "around"
        said = f"{estimate:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"
        parts.append(
            f'<div class="bar"><dt>{escape(name)}</dt><dd><svg viewBox="0 0 100 8" preserveAspectRatio="none" '
            f'class="interval {side}" role="img" aria-label="{escape(f"{name}: {said}")}">'
            '<rect class="track" width="100" height="8"/><rect class="zero" x="49.7" width="0.6" height="8"/>'
            f'<rect class="span" x="{begin:.2f}" y="2.5" width="{max(end - begin, 0.6):.2f}" height="3"/>'
            f'<rect class="middle" x="{middle - 0.5:.2f}" width="1" height="8"/></svg><span>{said}</span></dd></div>'
        )
    empty = '<p class="none">Nothing to show.</p>' if not rows else ""
    return _svg(
        f'<figure class="bars"><figcaption>{escape(title)}</figcaption><dl>{"".join(parts)}</dl>{empty}</figure>'
    )


def spark(values: Sequence[float], name: str) -> Markup:
    """A tiny line without axes."""
    top = max([*values, 1e-9])
    count = max(len(values) - 1, 1)
    points = " ".join(f"{100 * n / count:.1f},{22 - 20 * value / top:.1f}" for n, value in enumerate(values))
    return _svg(
        f'<svg class="spark" viewBox="0 0 100 24" preserveAspectRatio="none" role="img" aria-label="{escape(name)}">'
        f'<polyline points="{points}"/></svg>'
    )


def _svg(text: str) -> Markup:
    return Markup(text)  # noqa: S704 - every text in it was escaped


def _x(place: int, count: int) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (place / (count - 1) if count > 1 else 0.5)


@dataclass(frozen=True, slots=True)
class _Scale:
    """From values to heights."""

    low: float
    top: float

    @classmethod
    def of(cls, values: Sequence[float], least_top: float, from_zero: bool) -> _Scale:
        if from_zero or not values:
            return cls(0.0, _nice(max([*values, least_top])))
        low, top = min(values), max(values)
        step = _nice(max((top - low) / 2.0, 1e-3 * abs(top), 1e-9))
        low = math.floor(low / step) * step
        return cls(low, low + 2.0 * step if low + 2.0 * step >= top else low + 4.0 * step)

    def y(self, value: float) -> float:
        part = (min(max(value, self.low), self.top) - self.low) / (self.top - self.low)
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1.0 - part)


def _nice(top: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(top))
    return next(step * power for step in (1.0, 2.0, 2.5, 5.0, 10.0) if step * power >= top * 0.999)


def _short(value: float) -> str:
    if value >= 1_000_000:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value >= 1_000 else f"{value:.4g}"


def _grid(scale: _Scale, unit: str) -> str:
    drawn = []
    for part in (0.0, 0.5, 1.0):
        value = scale.low + (scale.top - scale.low) * part
        y = scale.y(value)
        drawn.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        drawn.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}">{_short(value)}{escape(unit)}</text>')
    return "".join(drawn)


def _places(series: Sequence[tuple[str, Sequence[float | None]]], labels: Sequence[str], unit: str) -> str:
    """Invisible columns that carry the tooltips."""
    count = len(labels)
    width = (_WIDTH - _LEFT - _RIGHT) / max(count, 1)
    found = []
    for place, label in enumerate(labels):
        said = "\n".join(f"{name}: {row[place]:,.4g}{unit}" for name, row in series if row[place] is not None)
        x = _x(place, count) - width / 2
        found.append(
            f'<rect class="place" x="{x:.1f}" y="{_TOP}" width="{width:.1f}" height="{_HEIGHT - _TOP - _BOTTOM}">'
            f"<title>{escape(label)}\n{escape(said)}</title></rect>"
        )
    return "".join(found)


def _axis(labels: Sequence[str]) -> str:
    count = len(labels)
    if not count:
        return ""
    shown = {0: "start", count // 2: "middle", count - 1: "end"} if count > 2 else {count - 1: "end"}
    return "".join(
        f'<text class="label {anchor}" x="{_x(place, count):.1f}" y="{_HEIGHT - 6}">{escape(labels[place])}</text>'
        for place, anchor in shown.items()
    )


def _runs(row: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    runs: list[list[tuple[int, float]]] = []
    open_ = False
    for place, value in enumerate(row):
        if value is None or not math.isfinite(value):
            open_ = False
            continue
        if not open_:
            runs.append([])
            open_ = True
        runs[-1].append((place, value))
    return runs


def _last(row: Sequence[float | None], unit: str) -> str:
    found = [value for value in row if value is not None]
    return f"{found[-1]:,.4g}{unit}" if found else "none"
