"""The page at `/docs`: what the OpenAPI document says, as HTML made here. No script, and nothing from elsewhere."""

import base64
import hashlib
from html import escape
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import HTMLResponse

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
h1,h2{line-height:1.2}summary{cursor:pointer;padding:.3rem 0}code{font-size:.95em}
.method{display:inline-block;width:4.5rem;font-weight:700}details{border-top:1px solid #ddd}
table{border-collapse:collapse;margin:.3rem 0 1rem}td{padding:.15rem .8rem .15rem 0;vertical-align:top}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}details{border-color:#444}a{color:#8bf}}
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def install(app: FastAPI) -> None:
    """Serve the page for this application's document."""

    async def show(_request: Request) -> HTMLResponse:
        return HTMLResponse(page(app.openapi()), headers=_HEADERS)

    app.add_route("/docs", show, methods=["GET"], include_in_schema=False)


def page(document: dict[str, Any]) -> str:
    """The whole page; everything from the document is escaped."""
    title = escape(document["info"]["title"])
    groups: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            groups.setdefault(operation["tags"][0], []).append(_operation(method, path, operation))
    parts = [f"<h2>{escape(tag)}</h2>{''.join(found)}" for tag, found in groups.items()]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{title} {escape(document['info']['version'])}</h1><p>{escape(document['info']['summary'])}</p>"
        "<p>Every call carries <code>Authorization: Bearer KEY</code>. The whole of it, for programs: "
        f'<a href="openapi.json">openapi.json</a>.</p>{"".join(parts)}</body></html>'
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = [
        (f"{parameter['name']} ({parameter['in']})", parameter.get("description", ""))
        for parameter in operation.get("parameters", ())
    ]
    content = operation.get("requestBody", {}).get("content", {})
    rows += [(f"body ({kind})", _kind(body["schema"])) for kind, body in content.items()]
    rows += [(status, answer["description"]) for status, answer in operation["responses"].items()]
    table = "".join(f"<tr><td><code>{escape(name)}</code></td><td>{escape(text)}</td></tr>" for name, text in rows)
    return (
        f'<details><summary><span class="method">{method.upper()}</span> <code>{escape(path)}</code> '
        f"{escape(operation['summary'])}</summary><p>{escape(operation.get('description', ''))}</p>"
        f"<table>{table}</table></details>"
    )


def _kind(schema: dict[str, Any]) -> str:
    return str(schema.get("$ref", "").rpartition("/")[2] or schema.get("format") or schema.get("type", "object"))
