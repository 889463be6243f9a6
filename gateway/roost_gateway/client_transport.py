"""How a client's requests travel: one connection pool, the server's refusals as ApiError, silence as ServerNotThere.

httpx, which takes a tenth of a second to import, is loaded by the first client, so that the command line can import this
module and stay quick.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    import httpx

Document = dict[str, Any]
"""A JSON object, as the server wrote it."""

DEFAULT_URL = "http://127.0.0.1:8000"
_CONNECT_TIMEOUT_S = 5.0
_CONNECT_PAUSE_S = 0.1  # before the one second try


class ApiError(Exception):
    """The server said no. `code` is the stable word for programs, `message` the sentence for people."""

    def __init__(
        self,
        *,
        status: int,
        code: str,
        message: str,
        field: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.field = field
        """The part of the request at fault."""
        self.request_id = request_id
        """What the operator needs to find this call in the server's log."""
        self.retry_after = retry_after
        """Seconds after which another try may succeed."""

    def to_json(self) -> Document:
        """The error body as the server writes it."""
        document: Document = {"error": self.message, "code": self.code, "request_id": self.request_id}
        return document | ({"field": self.field} if self.field else {})


class ServerNotThere(Exception):
    """Nobody listens at `url`, or the connection broke before an answer came."""

    def __init__(self, url: str, message: str, *, connected: bool) -> None:
        super().__init__(message)
        self.url = url
        self.connected = connected
        """True when somebody listened, so that the request may have been carried out."""


def normal_url(url: str) -> str:
    """`url` with a scheme and without a trailing slash: `localhost:8000/` is `http://localhost:8000`."""
    return (url if "://" in url else f"http://{url}").rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether `url` can only lead to this machine."""
    host = urlsplit(normal_url(url)).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Transport:
    """The connection of a client, for one key. Nothing is tried again but opening the connection.

    `tenant` names the tenant that an operator key acts for; a tenant's own key needs none. `timeout` is in seconds,
    for each wait on the network.
    """

    def __init__(
        self, url: str = DEFAULT_URL, api_key: str | None = None, *, tenant: str | None = None, timeout: float = 30.0
    ) -> None:
        import httpx  # noqa: PLC0415 - see above

        self.url = normal_url(url)
        self._tenant = tenant
        self._timeout = timeout
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            params={"tenant": tenant} if tenant else {},
            timeout=httpx.Timeout(timeout, connect=_CONNECT_TIMEOUT_S),
            trust_env=not is_loopback(self.url),  # a proxy for the Internet cannot reach this machine's own server
        )

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _json(self, method: str, path: str, **how: Any) -> Document:
        response = self._send(method, path, **how)
        try:
            document = response.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise ApiError(
                status=response.status_code,
                code="not_roost",
                message=f"{self.url} answered, but not as Roost does",
                request_id=response.headers.get("X-Request-Id"),
            )
        return document

    def _lines(self, path: str, *, params: Mapping[str, Any]) -> Iterator[Document]:
        """The JSON objects of an answer that holds one a line, each as soon as it is there."""
        import httpx  # noqa: PLC0415 - see above

        try:
            with self._http.stream("GET", path, params=dict(params)) as response:
                if not response.is_success:
                    response.read()
                    raise _api_error(response)
                for line in response.iter_lines():
                    if line:
                        yield json.loads(line)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ServerNotThere(self.url, f"No Roost at {self.url}.", connected=False) from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            message = f"The connection to {self.url} broke before an answer was whole: {error}"
            raise ServerNotThere(self.url, message, connected=True) from error

    def _send(
        self,
        method: str,
        path: str,
        *,
        content: Callable[[], bytes | Iterator[bytes]] | None = None,
        read_timeout: float | None = None,
        **how: Any,
    ) -> "httpx.Response":
        import httpx  # noqa: PLC0415 - see above

        timeout = httpx.Timeout(read_timeout or self._timeout, connect=_CONNECT_TIMEOUT_S)
        try:
            try:
                response = self._http.request(method, path, timeout=timeout, content=content and content(), **how)
            except httpx.ConnectError:
                time.sleep(_CONNECT_PAUSE_S)
                response = self._http.request(method, path, timeout=timeout, content=content and content(), **how)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ServerNotThere(self.url, f"No Roost at {self.url}.", connected=False) from error
        except httpx.TimeoutException as error:
            raise ServerNotThere(self.url, f"Roost at {self.url} did not answer in time.", connected=True) from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            message = f"The connection to {self.url} broke before an answer came: {error}"
            raise ServerNotThere(self.url, message, connected=True) from error
        if not response.is_success:
            raise _api_error(response)
        return response


def given(params: Mapping[str, Any]) -> dict[str, Any]:
    """Without those that are left to the server."""
    return {name: value for name, value in params.items() if value is not None}


def path_of(*parts: str) -> str:
    return "/api/v1/" + "/".join(quote(part, safe="") for part in parts)


def _api_error(response: "httpx.Response") -> ApiError:
    try:
        document = response.json()
    except ValueError:
        document = {}
    if not isinstance(document, dict):
        document = {}
    retry_after = response.headers.get("Retry-After", "")
    return ApiError(
        status=response.status_code,
        code=str(document.get("code", f"http_{response.status_code}")),
        message=str(document.get("error", f"the server answered {response.status_code} {response.reason_phrase}")),
        field=document.get("field"),
        request_id=document.get("request_id") or response.headers.get("X-Request-Id"),
        retry_after=float(retry_after) if retry_after.isdecimal() else None,
    )
