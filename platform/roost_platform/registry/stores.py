"""Which store a URL means: a bucket (`s3://bucket/prefix`), or the data folder when there is none."""

from pathlib import Path
from urllib.parse import urlsplit

from roost_platform.domain.errors import InvalidRequest, Unavailable
from roost_platform.registry.store import ArtifactStore, DiskStore


def make_store(
    folder: Path,
    *,
    url: str | None = None,
    endpoint_url: str | None = None,
    region: str | None = None,
    cache_bytes: int = 16 * 1024**3,
    keep_s: float = 300.0,
) -> ArtifactStore:
    """The store of a gateway with this data folder. Looks at the disk, asks no service.

    `endpoint_url`: of an S3 service that is not Amazon's; `region`: None = as the AWS chain says. `cache_bytes`: of copies
    in the folder; `keep_s`: how long a copy stays after it was last asked for, more than the start of a replica takes.
    Credentials come from the standard AWS chain of this process only: environment, shared files, the machine's role.

    Raises InvalidRequest when the URL is none, Unavailable when what S3 needs is not installed.
    """
    if url is None:
        return DiskStore(folder)
    bucket, prefix = _place_of(url)
    try:
        # Only here: most installations have no bucket, and need not wait for this import nor have it.
        from roost_platform.registry.s3_bucket import S3Place  # noqa: PLC0415
        from roost_platform.registry.s3_store import S3Store  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise Unavailable("ROOST_ARTIFACTS_URL names a bucket: install roost[s3]", code="s3_missing") from error
    place = S3Place(bucket=bucket, prefix=prefix, endpoint_url=endpoint_url, region=region)
    return S3Store(folder, place, cache_bytes=cache_bytes, keep_s=keep_s)


def _place_of(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc or "@" in parts.netloc or parts.query or parts.fragment:
        raise InvalidRequest("ROOST_ARTIFACTS_URL must be of the form s3://bucket/prefix", code="invalid_artifacts_url")
    prefix = parts.path.strip("/")
    return parts.netloc, f"{prefix}/" if prefix else ""
