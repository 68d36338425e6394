"""SVG without any library: what the pictures of docs/draw.py are made of."""

from __future__ import annotations

from xml.sax.saxutils import escape

STYLE = """
text { font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; font-size: 13px; fill: #1f2328 }
.small { font-size: 11px } .quiet { fill: #59636e } .title { font-weight: 600 } .ours { fill: #0969da }
.bar { fill: #c4ccd5 } .arrow { stroke: #0969da; stroke-width: 1.5 }
.gap { fill: none; stroke: #8c959f; stroke-dasharray: 2 2 } .rule { stroke: #d1d9e0 }
.line { fill: none; stroke: #0969da; stroke-width: 2 } .faint { fill: none; stroke: #0969da; opacity: 0.35 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .quiet { fill: #9198a1 } .ours { fill: #4493f8 } .line, .faint, .arrow { stroke: #4493f8 }
  .bar { fill: #4b545f } .gap { stroke: #656c76 } .rule { stroke: #3d444d }
}
"""


def svg(width: float, height: float, title: str, parts: list[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>", *parts, "</svg>\n"])


def text(x: float, y: float, words: str, style: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{style}" text-anchor="{anchor}">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, style: str = "", colour: str = "") -> str:
    fill = f' style="fill: {colour}"' if colour else ""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:g}" rx="2" class="{style}"{fill}/>'


def dot(x: float, y: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" style="fill: #ff725c"/>'
