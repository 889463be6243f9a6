"""Where the Kubernetes API server is and how to be let in: a pod's service account, a kubeconfig file, or an address.

In-cluster tokens are replaced about once an hour: the file is read anew for every request, which is a page of memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes.aio.client import Configuration
from kubernetes.aio.config import load_kube_config

from roost_platform.domain.errors import InvalidRequest

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Access:
    """Either `url` (with what it needs) or `kubeconfig`."""

    url: str = ""
    token_file: Path | None = None
    """Read for every request; None = no token."""
    ca_file: Path | None = None
    """Certificates to trust, in PEM; None = those of the machine."""
    kubeconfig: Path | None = None
    context: str | None = None
    """Of the kubeconfig; None = its current one."""


def in_cluster(environment: Mapping[str, str], *, folder: Path = SERVICE_ACCOUNT) -> Access:
    """The access that Kubernetes gives to a pod with a service account. Raises InvalidRequest outside of one."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port or not (folder / "token").is_file():
        raise InvalidRequest(
            "this is not a pod with a service account: name a kubeconfig file", code="no_cluster", field="kubeconfig"
        )
    shown = f"[{host}]" if ":" in host else host
    return Access(url=f"https://{shown}:{port}", token_file=folder / "token", ca_file=folder / "ca.crt")


async def configure(access: Access, configuration: Configuration) -> None:
    """Fill in a client's configuration; done again, it renews what a kubeconfig's login gives.

    Raises InvalidRequest for a kubeconfig that cannot be used, OSError for files that cannot be read.
    """
    # Python 3.13 wants extensions in certificates that many clusters' own authorities do not write. Chain and name are
    # checked as ever.
    configuration.disable_strict_ssl_verification = True
    if access.kubeconfig is not None:
        try:
            await load_kube_config(  # type: ignore[no-untyped-call]
                config_file=str(access.kubeconfig),
                context=access.context,
                client_configuration=configuration,
                persist_config=False,
            )
        except Exception as error:  # beside ConfigException whatever reading YAML raises: a file may hold anything
            raise InvalidRequest(f"{access.kubeconfig}: {error}", code="bad_kubeconfig", field="kubeconfig") from error
        return
    configuration.host = access.url.rstrip("/")
    if access.ca_file is not None:
        configuration.ssl_ca_cert = str(access.ca_file)
    token_file = access.token_file
    if token_file is not None:

        def read_token(current: Any) -> None:
            current.api_key["BearerToken"] = f"Bearer {token_file.read_text().strip()}"

        read_token(configuration)
        configuration.refresh_api_key_hook = read_token  # type: ignore[assignment]
