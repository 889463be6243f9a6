"""One bucket of an S3 service, in the few calls that a store of artifacts needs; each is tried again while that may help."""

import base64
import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from roost_platform.registry.s3_errors import FAILURES, Meaning, Patience, meaning_of

_CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class S3Place:
    """Where the objects are. Credentials come from the standard AWS chain of this process, and from nowhere else."""

    bucket: str
    prefix: str = ""
    """Of every key; empty, or ends with a slash."""
    endpoint_url: str | None = None
    """Of a service that is not Amazon's."""
    region: str | None = None
    """None = as the AWS chain says."""


@dataclass(frozen=True, slots=True)
class S3Limits:
    connect_s: float = 5.0
    silence_s: float = 10.0
    """A service that sends nothing for so long is given up; the step is then tried again."""
    patience_s: float = 30.0
    """How long a step (a request, a part of a file) is tried without getting ahead."""
    transfer_s: float = 900.0
    """How long fetching one file may take."""
    part_bytes: int = 8 * 1024**2
    """A larger file is uploaded in parts of this size, each tried for itself; S3 takes none below 5 MiB."""
    parts_at_once: int = 4


@dataclass(frozen=True, slots=True)
class Found:
    """What is under a key."""

    size: int
    sha256: str | None
    """Of the whole object, in Base64, where the service knows it."""


@dataclass(frozen=True, slots=True)
class Listed:
    key: str
    age_s: float
    """By the service's own clock."""


class S3Bucket:
    """Safe to use from several threads. Raises `s3_errors.FAILURES`; `close` ends waiting for the next try."""

    def __init__(self, place: S3Place, limits: S3Limits, session: boto3.session.Session) -> None:
        self._bucket = place.bucket
        self._prefix = place.prefix
        self._limits = limits
        self._conditional = True
        """The service knows `If-None-Match`, as far as it has been asked."""
        self.patience = Patience(patience_s=limits.patience_s)
        self._client: Any = session.client(
            "s3",
            endpoint_url=place.endpoint_url,
            region_name=place.region or session.region_name or ("us-east-1" if place.endpoint_url else None),
            config=Config(
                connect_timeout=limits.connect_s,
                read_timeout=limits.silence_s,
                retries={"total_max_attempts": 1},  # ours know a deadline
                signature_version="s3v4",
                s3={"addressing_style": "path" if place.endpoint_url else "auto"},
                max_pool_connections=_CONNECTIONS,
                response_checksum_validation="when_required",  # ours is over the whole file
            ),
        )

    def close(self) -> None:
        self.patience.close()

    def head(self, key: str) -> Found | None:
        """None when there is nothing."""
        try:
            answer = self._call(self._client.head_object, Key=self._key(key), ChecksumMode="ENABLED")
        except FAILURES as error:
            if meaning_of(error) is Meaning.MISSING:
                return None
            raise
        whole = answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
        return Found(answer["ContentLength"], answer.get("ChecksumSHA256") if whole else None)

    def put(self, key: str, path: Path, sha256: bytes, *, replace: bool = False) -> None:
        """Upload a whole file; it is under its key at once or not at all. One that is there stays unless told so."""
        if path.stat().st_size > self._limits.part_bytes:
            self._put_parts(key, path, replace=replace)
            return
        body = {"Body": path.read_bytes(), "ChecksumSHA256": base64_of(sha256)}
        self._create(self._client.put_object, replace=replace, Key=self._key(key), **body)

    def get(self, key: str, start: int = 0) -> tuple[int, Any]:
        """The size of the whole object, and its bytes from this one on. Not tried again: the caller knows how far it was."""
        wanted = {"Range": f"bytes={start}-"} if start else {}
        answer = self._client.get_object(Bucket=self._bucket, Key=self._key(key), **wanted)
        size = int(answer["ContentRange"].rpartition("/")[2]) if start else answer["ContentLength"]
        return size, answer["Body"]

    def delete(self, key: str) -> None:
        """What is not there is fine."""
        self._call(self._client.delete_object, Key=self._key(key))

    def list(self, prefix: str) -> Iterator[Listed]:
        """All objects whose keys begin so."""
        more: dict[str, str] = {}
        while True:
            page = self._call(self._client.list_objects_v2, Prefix=self._key(prefix), **more)
            now = _time_of(page)
            for item in page.get("Contents", ()):
                yield Listed(item["Key"].removeprefix(self._prefix), (now - item["LastModified"]).total_seconds())
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def abandon_uploads(self, prefix: str, *, older_than_s: float) -> int:
        """End uploads in parts that began so long ago and that nobody ends any more; how many."""
        page = self._call(self._client.list_multipart_uploads, Prefix=self._key(prefix))
        now = _time_of(page)
        old = [u for u in page.get("Uploads", ()) if (now - u["Initiated"]).total_seconds() >= older_than_s]
        for upload in old:
            self._abort(upload["Key"], upload["UploadId"])
        return len(old)

    def presign(self, key: str, *, seconds: int) -> str:
        what = {"Bucket": self._bucket, "Key": self._key(key)}
        return str(self._client.generate_presigned_url("get_object", Params=what, ExpiresIn=seconds))

    def _put_parts(self, key: str, path: Path, *, replace: bool) -> None:
        name = self._key(key)
        upload = self._call(self._client.create_multipart_upload, Key=name, ChecksumAlgorithm="SHA256")["UploadId"]
        try:
            size = self._limits.part_bytes
            starts = range(0, path.stat().st_size, size)
            with ThreadPoolExecutor(self._limits.parts_at_once, thread_name_prefix="s3-parts") as pool:
                sent = [pool.submit(self._put_part, name, upload, path, start) for start in starts]
                try:
                    parts = [part.result() for part in sent]
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
            whole = {"UploadId": upload, "MultipartUpload": {"Parts": parts}}
            self._complete(key, path.stat().st_size, replace=replace, **whole)
        except BaseException:
            self._abort(name, upload)
            raise

    def _put_part(self, name: str, upload: str, path: Path, start: int) -> dict[str, Any]:
        size = self._limits.part_bytes
        with path.open("rb") as file:
            file.seek(start)
            body = file.read(size)
        checksum = base64_of(hashlib.sha256(body).digest())
        number = start // size + 1
        answer = self._call(
            self._client.upload_part, Key=name, UploadId=upload, PartNumber=number, Body=body, ChecksumSHA256=checksum
        )
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum}

    def _complete(self, key: str, size: int, *, replace: bool, **whole: Any) -> None:
        try:
            exists = self._create(self._client.complete_multipart_upload, replace=replace, Key=self._key(key), **whole)
        except FAILURES as error:
            if meaning_of(error) is not Meaning.MISSING:
                raise
            # Nothing to complete: an earlier try did, and its answer was lost on the way.
            found = self.head(key)
            if found is None or found.size != size:
                raise
            return
        if exists:
            self._abort(self._key(key), whole["UploadId"])

    def _create(self, call: Any, *, replace: bool, **arguments: Any) -> bool:
        """Make an object, if there is none where the service can tell; whether there was one, which then stays."""
        if self._conditional and not replace:
            try:
                self._call(call, IfNoneMatch="*", **arguments)
            except FAILURES as error:
                meaning = meaning_of(error)
                if meaning is Meaning.EXISTS:
                    return True
                if meaning is not Meaning.UNSUPPORTED:
                    raise
                self._conditional = False  # it then replaces: by the same bytes, for keys are digests
            else:
                return False
        self._call(call, **arguments)
        return False

    def _abort(self, name: str, upload: str) -> None:
        """Best effort: the sweep finds what stays behind."""
        try:
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=name, UploadId=upload)
        except FAILURES:
            return

    def _call(self, call: Any, **arguments: Any) -> Any:
        return self.patience.attempt(call, Bucket=self._bucket, **arguments)

    def _key(self, key: str) -> str:
        return self._prefix + key


def base64_of(digest: bytes) -> str:
    """As S3 writes checksums."""
    return base64.b64encode(digest).decode()


def _time_of(answer: Any) -> datetime:
    """What the service's clock said when it answered: ours may go differently."""
    stated = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(stated) if stated else datetime.now(UTC)
