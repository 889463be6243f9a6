"""Why a request is refused; every door answers these the same way."""


class RequestError(Exception):
    """The request cannot be served. `message` and `field` are shown to the client: no paths, no internal names."""

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        status: int = 400,
        code: str = "invalid_request",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.status = status
        self.code = code
        self.headers = headers
