"""Small inline SVG charts for the report, drawn by matplotlib and coloured by the page's own CSS variables.

Each chart is one panel, so that a phone can stack what a desktop shows side by side.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

INK, MUTED, LINE = "#010101", "#020202", "#030303"
"""Stand-ins that no one sees: `_themed` puts the page's CSS variables in their place."""
VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)"}
ARM_COLOURS = 6
"""Colours that the page defines, `--arm-0` to `--arm-5`; further arms start over."""

Series = Mapping[str, Sequence[tuple[float, float]]]


def rate_chart(rates: Mapping[str, Mapping[str, float]], colours: Mapping[str, int], key: str) -> str:
    """Horizontal bars in per cent with error bars, one an arm.

    Args:
        rates: label of the arm -> {"value", "low", "high"}, rates in 0..1.
        colours: label of the arm -> index of its colour.
        key: prefix of the SVG's ids, unique in the page.
    """
    figure, axes = _panel(0.36 + 0.26 * len(rates))
    for row, (arm, rate) in enumerate(rates.items()):
        value, low, high = (100 * rate[name] for name in ("value", "low", "high"))
        axes.barh(row, value, height=0.62, color=_stand_in(colours[arm]), zorder=2)
        axes.plot([low, high], [row, row], color=INK, linewidth=1.3, solid_capstyle="butt", zorder=3)
        axes.plot([low, high], [row, row], linestyle="none", marker="|", markersize=5, color=INK, zorder=3)
        axes.text(103, row, f"{value:.1f}", va="center", ha="left", fontsize=9, color=INK)
    axes.set_yticks(range(len(rates)), list(rates))
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.grid(axis="x", color=LINE, linewidth=0.8, zorder=0)
    axes.tick_params(axis="y", labelcolor=INK, labelsize=9.5)
    return _svg(figure, key)


def curve_chart(series: Series, colours: Mapping[str, int], key: str, dashed: Series | None = None) -> str:
    """Curves over training steps; `dashed` ones, of the same labels, are drawn thinner."""
    figure, axes = _panel(1.75)
    for style, group in (("solid", series), ("dashed", dashed or {})):
        for arm, points in group.items():
            xs, ys = zip(*points, strict=True)
            width, marker = (1.8, "o" if len(points) == 1 else None) if style == "solid" else (1.1, None)
            colour = _stand_in(colours[arm])
            axes.plot(xs, ys, color=colour, linewidth=width, linestyle=style, marker=marker, markersize=4)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_xlabel("step", fontsize=9, color=MUTED)
    axes.tick_params(axis="y", labelcolor=MUTED, labelsize=9)
    axes.margins(x=0.02, y=0.08)
    return _svg(figure, key)


def _panel(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.7, height), layout="constrained")
    axes = figure.add_subplot()
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom")
        spine.set_color(LINE)
    axes.tick_params(length=0, labelcolor=MUTED, labelsize=9)
    return figure, axes


def _stand_in(index: int) -> str:
    return f"#0a0a{index % ARM_COLOURS:02x}"


def _svg(figure: Any, key: str) -> str:
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": key, "font.family": "sans-serif"}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _themed(text.getvalue(), key)


def _themed(svg: str, key: str) -> str:
    """The bare `<svg>` element: CSS variables for colours, the page's font, ids that no other chart has."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1 role="img"', svg)
    svg = re.sub(r'\bid="', f'id="{key}-', svg)
    svg = re.sub(r"url\(#", f"url(#{key}-", svg)
    svg = re.sub(r'href="#', f'href="#{key}-', svg)
    svg = re.sub(r"font: ([0-9.]+px) [^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg)
    for stand_in, variable in VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    return re.sub(r"#0a0a(\d\d)", lambda m: f"var(--arm-{int(m[1])})", svg)
