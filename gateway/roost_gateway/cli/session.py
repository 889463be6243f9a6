"""What every command shares: the options --url, --api-key, --tenant and --json, and how errors end it."""

import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Concatenate, ParamSpec

import typer

from roost_gateway.cli import credentials, show
from roost_gateway.client import DEFAULT_URL, ApiError, Document, RoostClient, ServerNotThere, is_loopback, normal_url

P = ParamSpec("P")

Url = Annotated[str | None, typer.Option(metavar="URL", help=f"The server [env: ROOST_URL; else {DEFAULT_URL}].")]
Key = Annotated[str | None, typer.Option(metavar="KEY", help="Better in ROOST_API_KEY, where `ps` does not show it.")]
Tenant = Annotated[str | None, typer.Option(metavar="NAME", help="As the operator: act for this tenant.")]
Json = Annotated[bool, typer.Option("--json", help="Print the API's JSON.")]
_SHARED: dict[str, tuple[Any, Any]] = {
    "url": (Url, None),
    "api_key": (Key, None),
    "tenant": (Tenant, None),
    "json_output": (Json, False),
}

_NEXT_BY_CODE = {
    "tenant_exists": "Choose another name, or see it with: roost tenant show NAME",
    "model_error": "See a request that fits the model's signature with: roost predict MODEL --sample",
    "credit_exceeds": "See the statement and its notes with: roost bill --tenant NAME",
    "line_not_found": "See the lines of the statement with: roost bill YYYY-MM",
    "month_not_over": "It becomes final after its end; see it so far with: roost bill YYYY-MM",
    "not_a_statement": "See which statement it belongs to with: roost bill --tenant NAME --json",
    "statement_marked": "A mark is for good; see the marks with: roost bill --tenant NAME",
    "statement_not_found": "Only final statements can be noted or marked; see them with: roost bill --tenant NAME",
    "statement_void": "Nothing of it is owed, so there is nothing to credit or to add.",
}
_NEXT_BY_STATUS = {
    400: "Correct it and try again; the command's --help has an example.",
    401: "Give a key with ROOST_API_KEY or --api-key; the operator makes one with: roost tenant create NAME --save",
    403: "This needs another key: one with that scope (roost key create), or the operator's in ROOST_OPERATOR_KEY.",
    404: "See what there is with roost models, roost versions MODEL or, as the operator, roost tenant list.",
    409: "See how things stand with: roost status MODEL",
    413: "The file is over the server's size limit or the tenant's storage quota: see roost tenant show NAME",
    415: "Deploy an ONNX file: Roost takes nothing that can run code.",
    422: "Correct the file and deploy it again; what served before still does.",
    429: "Wait and try again, or ask the operator for a larger quota.",
    503: "Wait a moment and try again; see what is wrong with: roost status MODEL",
    504: "Try again, or allow more time with: roost scale MODEL timeout=SECONDS",
    507: "The operator must free space on the server's disk.",
}
_NEXT_ELSE = "Try again; if it stays so, tell the operator the request id, which finds this call in the server's log."


@dataclass(frozen=True, slots=True)
class Session:
    """One run of the command: where the server is, who asks, and how to print."""

    url: str
    api_key: str | None
    tenant: str | None
    json_output: bool

    def connect(self, *, as_operator: bool = False) -> RoostClient:
        """A client with the best key there is; without any, the server's 401 tells the user what to do."""
        key = self.api_key
        if key is None and (as_operator or self.tenant):
            key = credentials.operator_key(os.environ, loopback=is_loopback(self.url))
        return RoostClient(self.url, key or credentials.tenant_key(self.url, os.environ), tenant=self.tenant)

    def emit(self, document: Document, human: Callable[[Document], None]) -> None:
        """Print `document` as JSON if that was asked for, else let `human` print it."""
        (show.json_document if self.json_output else human)(document)


def shared_options(
    ctx: typer.Context, url: Url = None, api_key: Key = None, tenant: Tenant = None, json_output: Json = False
) -> None:
    """Serverless model serving: upload an ONNX file, get a metered endpoint that sleeps at zero."""
    ctx.obj = {"url": url, "api_key": api_key, "tenant": tenant, "json_output": json_output}


def command(
    app: typer.Typer, name: str, *, example: str
) -> Callable[[Callable[Concatenate[Session, P], None]], Callable[Concatenate[Session, P], None]]:
    """Register a function of (session, its own arguments) as a command that takes the shared options too.

    They may stand before or after the command's name; after wins.
    """

    def register(function: Callable[Concatenate[Session, P], None]) -> Callable[Concatenate[Session, P], None]:
        def run(ctx: typer.Context, **values: Any) -> None:
            before = ctx.find_root().obj or {}
            given: dict[str, Any] = {option: values.pop(option) or before.get(option) for option in _SHARED}
            given["url"] = normal_url(given["url"] or os.environ.get("ROOST_URL") or DEFAULT_URL)
            session = Session(**given)
            with errors_end_the_command(json_output=session.json_output):
                function(session, **values)  # type: ignore[call-arg]  # Typer has checked them against the signature

        _, *own = inspect.signature(function).parameters.values()
        parameters = [
            inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
            *(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own),
            *(
                inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
                for option, (kind, default) in _SHARED.items()
            ),
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what Typer reads
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__doc__ = function.__doc__
        app.command(name, epilog=f"Example: {example}")(run)
        return function

    return register


@contextmanager
def errors_end_the_command(*, json_output: bool = False) -> Iterator[None]:
    """Turn the client's errors into words on stderr and the exit status that `roost_gateway.cli` describes."""
    try:
        yield
    except ServerNotThere as error:
        show.error(str(error) if error.connected else f"{error} Start one with: roost serve")
        raise typer.Exit(3) from None
    except ApiError as error:
        if json_output:
            show.json_document(error.to_json(), err=True)
        else:
            _explain(error)
        raise typer.Exit(1) from None


def _explain(error: ApiError) -> None:
    show.error(f"Error: {error.message}")
    details = [error.code, f"request {error.request_id}"] if error.request_id else [error.code]
    if error.field:
        details.insert(1, f"at {error.field}")
    show.error(f"       ({', '.join(details)})")
    advice = _NEXT_BY_CODE.get(error.code) or _NEXT_BY_STATUS.get(error.status, _NEXT_ELSE)
    show.error(f"Next:  {advice}" if error.retry_after is None else f"Next:  try again in {error.retry_after:g} s")


def key_values(pairs: list[str], *, hint: str) -> dict[str, Any]:
    """Read `name=value` arguments; numbers become numbers, an empty value None (= the default)."""
    result: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint=hint)
        result[name] = _number(value) if value else None
    return result


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def iso_time(text: str | None, *, hint: str) -> str | None:
    """An ISO 8601 date or time as one with an offset; UTC unless it says."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a time like 2026-11-22 or 2026-11-22T15:04", param_hint=hint
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is lost; ends the command unless the answer is yes. Scripts say --yes."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{question} Nobody can be asked here: say --yes", param_hint="--yes")
    typer.confirm(question, abort=True, err=True)
