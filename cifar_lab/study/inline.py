"""Pictures inside a page: SVG cut to what a page needs, with names of its own, and small PNG as data."""

import base64
import re

from cifar_lab.analysis.figures import Layout, render

_METADATA = re.compile(r"<metadata>.*?</metadata>\s*", re.DOTALL)
_STYLE = re.compile(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>\s*", re.DOTALL)
_PLACES = re.compile(r'\b(?:d|x|y|points)="[^"]*"')
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_ID = re.compile(r'(\bid="|url\(#|href="#)')
_HEAD = re.compile(r"<svg\b[^>]*>", re.DOTALL)
_VIEW = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')


def svg(layout: Layout, name: str, alt: str) -> str:
    """A picture as an element of HTML.

    Its ids begin with ``name``, because ids of all pictures of a page share one space, and its coordinates have two
    decimals, which are hundredths of a point.

    Args:
        layout: What is drawn.
        name: Unique on the page; letters, digits and ``_``.
        alt: What it shows, for those who cannot see it; plain text.
    """
    text = render(*layout(False), "svg").decode()
    text = _METADATA.sub("", text[text.index("<svg") :])
    head = _HEAD.search(text)
    view = _VIEW.search(text)
    if head is None or view is None:
        raise ValueError(f"picture {name} is no SVG as matplotlib writes it")
    body = _ID.sub(lambda found: f"{found[1]}{name}-", text[head.end() :])
    body = _PLACES.sub(lambda found: _LONG_NUMBER.sub(_rounded, found[0]), _STYLE.sub("", body))
    size = f'width="{float(view[1]) * 4 / 3:.0f}" height="{float(view[2]) * 4 / 3:.0f}" viewBox="0 0 {view[1]} {view[2]}"'
    label = alt.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return f'<svg {size} role="img" aria-label="{label}" class="picture">{body.strip()}'


def png(data: bytes) -> str:
    """PNG bytes as the address of a picture."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def _rounded(found: re.Match[str]) -> str:
    return f"{float(found[0]):.2f}".rstrip("0").rstrip(".")
