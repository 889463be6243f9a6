"""The command line of a runtime: `python -m roost_runtimes serve --model FILE --name NAME --version N`."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_DESCRIPTION = "Serve one version of a model over HTTP (Open Inference Protocol v2)."


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m roost_runtimes")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands.add_parser("serve", help=_DESCRIPTION, description=_DESCRIPTION))
    options = parser.parse_args(arguments)
    try:
        secret = _secret(options.secret_file, os.environ)
        port = options.port if options.port is not None else int(os.environ.get("PORT", "8080"))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    # Before numpy and onnxruntime are imported: without these they start threads, and one sends usage data away.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from roost_runtimes.core import Limits  # noqa: PLC0415
    from roost_runtimes.logs import configure_logs  # noqa: PLC0415
    from roost_runtimes.server import Settings, run  # noqa: PLC0415

    configure_logs()
    return run(
        Settings(
            model=options.model,
            name=options.name,
            version=options.version,
            digest=options.digest,
            baked=options.baked,
            host=options.host,
            port=port,
            uds=options.uds,
            slots=options.slots,
            max_batch_size=options.max_batch_size,
            secret=secret,
            head_s=options.head_s,
            body_idle_s=options.body_idle_s,
            limits=Limits(body_bytes=options.max_body_bytes),
        )
    )


def _add_serve(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, type=Path, help="the ONNX file, or a folder that holds it as model.onnx")
    add("--name", required=True, help="the model's name in URLs")
    add("--version", default="1", help="the version's number in URLs")
    add("--digest", help="sha256 of the file; it is not loaded when it has another")
    add("--baked", action="store_true", help="the file was optimised already: load it as it is")
    add("--host", default="0.0.0.0", help="address to listen on")  # noqa: S104 - the container contract
    add("--port", type=int, help="port to listen on; default: $PORT, or 8080")
    add("--uds", type=Path, help="Unix socket to listen on instead")
    add("--slots", type=_positive, default=1, help="runs at once")
    add("--max-batch-size", type=_positive, default=1, help="rows of several requests in one run; 1 = no batching")
    add("--max-body-bytes", type=_positive, default=256 * 1024 * 1024, help="of a request, also after decompression")
    add("--head-s", type=float, default=10, help="seconds within which a request's head must be complete")
    add("--body-idle-s", type=float, default=30, help="seconds without a byte after which a body is given up")
    add("--secret-file", type=Path, help="file with the secret that requests must carry; or $ROOST_SERVICE_SECRET")


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
