"""Data to one HTML page that needs no network.

What came from a model or a dataset is in one block of JSON, in which no character can end the block, and the
page's scripts show it as text only. The Content-Security-Policy allows the page's own scripts, by their hashes,
and nothing from anywhere.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

SCRIPTS = (
    "dom",
    "format",
    "marks",
    "chart",
    "options",
    "summary",
    "curves",
    "diff",
    "cycles",
    "tree",
    "grid",
    "samples",
    "config",
    "live",
    "main",
)
LIBRARY = "vendor/echarts.common.min.js"
STYLES = ("base.css", "parts.css")
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def render(data: Mapping[str, object], *, live: bool = False) -> str:
    """The page. `live` allows it to ask the server that it came from, and no other, for newer data."""
    library, application = asset(LIBRARY), _application()
    parts = {
        "policy": _policy((library, application), live),
        "title": html.escape(f"{data['title']} · fastslow report"),
        "style": "\n".join(map(asset, STYLES)),
        "data": encode(data),
        "library": library,
        "application": application,
        "live": "true" if live else "false",
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], asset("page.html"))


def encode(value: object) -> str:
    """JSON that can stand in a script element: nothing in it can end the element or begin a comment."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&\u2028\u2029]", lambda match: _UNSAFE[match[0]], text)


@cache
def asset(name: str) -> str:
    """One of the files that the page is made of."""
    return files("fastslow.report").joinpath("assets", name).read_text(encoding="utf-8")


@cache
def _application() -> str:
    """The page's own scripts in one scope of their own."""
    inside = "\n".join(asset(f"js/{name}.js") for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{inside}\n}})();\n'


def _policy(scripts: tuple[str, ...], live: bool) -> str:
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    # Styles may be set inline, since the charts set them so; with no image,
    # font or address allowed they can fetch nothing.
    connect = "'self'" if live else "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; connect-src {connect}; "
        "base-uri 'none'; form-action 'none'"
    )
