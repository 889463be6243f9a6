"""The command line of a runtime: `python -m roost_runtimes serve --model FILE --name NAME --version N`.

In a container, where the file is fetched, everything comes from the environment; what the command line says goes first.
"""

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roost_runtimes.fetch import Fetch

_DESCRIPTION = "Serve one version of a model over HTTP (Open Inference Protocol v2)."
_DIGEST = re.compile(r"[0-9a-f]{64}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m roost_runtimes")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help=_DESCRIPTION, description=_DESCRIPTION)
    _add_serve(serve, os.environ)
    options = parser.parse_args(arguments)
    try:
        secret = _secret(options.secret_file, os.environ)
        model = _model(options, secret)
    except (OSError, ValueError) as error:
        serve.error(str(error))
    # Before numpy and onnxruntime are imported: without these they start threads, and one sends usage data away.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from roost_runtimes.core import Limits  # noqa: PLC0415
    from roost_runtimes.logs import configure_logs  # noqa: PLC0415
    from roost_runtimes.server import Settings, run  # noqa: PLC0415

    configure_logs()
    return run(
        Settings(
            model=model,
            name=options.name,
            version=options.version,
            digest=options.digest,
            baked=options.baked,
            factory=options.model_factory,
            host=options.host,
            port=options.port,
            uds=options.uds,
            slots=options.slots,
            max_batch_size=options.max_batch_size,
            secret=secret,
            head_s=options.head_s,
            body_idle_s=options.body_idle_s,
            limits=Limits(body_bytes=options.max_body_bytes),
        )
    )


def _add_serve(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    def add(flag: str, *, variable: str = "", default: Any = None, **about: Any) -> None:
        """An option; where it is not given, the variable counts if it says anything."""
        given = environment.get(variable) or None
        if variable:
            about["help"] += f" [${variable}]"
            about["required"] = about.get("required", False) and given is None
        parser.add_argument(flag, default=default if given is None else given, **about)

    add("--model", type=Path, help="the ONNX file, or a folder that holds it as model.onnx")
    add("--artifact-url", variable="ROOST_ARTIFACT_URL", help="fetch the file from here instead")
    add("--artifact-digest", variable="ROOST_ARTIFACT_DIGEST", help="sha256 of the file that is fetched")
    add("--artifact-size", variable="ROOST_ARTIFACT_SIZE", type=_positive, help="bytes of the file that is fetched")
    add(
        "--model-folder", variable="ROOST_MODEL_FOLDER", type=Path, help="where a fetched file goes; default: a new one"
    )
    add("--name", variable="ROOST_MODEL_NAME", required=True, help="the model's name in URLs")
    add("--version", variable="ROOST_MODEL_VERSION", default="1", help="the version's number in URLs")
    add("--digest", help="sha256 of the file; it is not loaded when it has another")
    add("--baked", action="store_true", default=False, help="the file was optimised already: load it as it is")
    factory = "module:callable that opens the file; default: the one for ONNX"
    add("--model-factory", variable="ROOST_MODEL_FACTORY", default="roost_runtimes.onnx_model:OnnxModel", help=factory)
    add("--host", default="0.0.0.0", help="address to listen on")  # noqa: S104 - the container contract
    add("--port", variable="PORT", type=int, default=8080, help="port to listen on; default: 8080")
    add("--uds", type=Path, help="Unix socket to listen on instead")
    add("--slots", variable="ROOST_SLOTS", type=_positive, default=1, help="runs at once")
    batch = "rows of several requests in one run; 1 = no batching"
    add("--max-batch-size", variable="ROOST_MAX_BATCH_SIZE", type=_positive, default=1, help=batch)
    body = "of a request, also after decompression"
    add("--max-body-bytes", variable="ROOST_MAX_BODY_BYTES", type=_positive, default=256 * 1024**2, help=body)
    add("--head-s", type=float, default=10, help="seconds within which a request's head must be complete")
    add("--body-idle-s", type=float, default=30, help="seconds without a byte after which a body is given up")
    add("--secret-file", type=Path, help="file with the secret that requests must carry; or $ROOST_SERVICE_SECRET")


def _model(options: argparse.Namespace, secret: str | None) -> "Path | Fetch":
    """The file, or the fetch that brings it, which begins now: the libraries are imported meanwhile."""
    if options.model is not None:
        return Path(options.model)
    if options.artifact_url is None:
        raise ValueError("one of --model and --artifact-url is needed")
    if options.artifact_size is None or not _DIGEST.fullmatch(options.artifact_digest or ""):
        raise ValueError("--artifact-url needs --artifact-digest, 64 hexadecimal digits, and --artifact-size")
    from roost_runtimes.fetch import Artifact, Fetch  # noqa: PLC0415

    artifact = Artifact(options.artifact_url, options.artifact_digest, options.artifact_size, secret)
    fetch = Fetch(artifact, options.model_folder)
    _leave_on_signals(fetch.clean_up)
    return fetch


def _leave_on_signals(clean_up: Callable[[], None]) -> None:
    """Until the server listens for them: the first process of a container has no default actions for signals."""

    def leave(*_: object) -> None:
        clean_up()
        os._exit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _secret(file: Path | None, environment: Mapping[str, str]) -> str | None:
    secret = file.read_text().strip() if file is not None else environment.get("ROOST_SERVICE_SECRET")
    if secret is not None and not (secret.isascii() and secret.isprintable() and secret):
        raise ValueError("the service's secret must be printable ASCII and not empty")
    return secret


if __name__ == "__main__":
    sys.exit(main())
