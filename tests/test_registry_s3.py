"""Artifacts in a bucket: a real S3 server, and between it and the store what services and networks do (L11)."""

import os
import threading
from dataclasses import replace
from urllib.request import urlopen

import pytest

from roost_platform.domain.errors import StorageFull, Unavailable
from s3_faults import Fault
from s3_parts import ACCESS_KEY, BUCKET, PATIENT, SECRET_KEY, digest_of, key_of

SMALL = b"a small model"
LARGE = os.urandom(1024) * (11 * 1024)
"""Three parts of 5 MiB or less."""
WATCHFUL = replace(PATIENT, silence_s=0.5)
"""Takes silence for a failure soon, and tries again all the same."""
PASSING = [(500, "InternalError"), (503, "SlowDown"), (503, "ServiceUnavailable"), (429, "TooManyRequests")]


def assert_nothing_is_left(s3) -> None:
    assert s3.objects() == {}
    assert s3.uploads() == []
    assert s3.copies() == []


def assert_tells_nothing(error) -> None:
    assert error.code == "artifact_store"
    assert error.message == "the store that holds models cannot be used right now"
    assert error.retry_after_s


def test_the_key_is_made_of_the_digest_and_the_checksum_is_the_services_too(s3):
    s3.store().put(s3.stage(SMALL), digest_of(SMALL))
    assert s3.objects() == {key_of(SMALL): len(SMALL)}
    head = s3.client.head_object(Bucket=BUCKET, Key=s3.prefix + key_of(SMALL), ChecksumMode="ENABLED")
    assert head["ChecksumSHA256"]


def test_a_large_file_goes_in_parts_and_comes_back_whole(s3):
    s3.store().put(s3.stage(LARGE), digest_of(LARGE))
    assert s3.proxy.count("PUT", "partNumber=") == 3
    assert s3.objects() == {key_of(LARGE): len(LARGE)}
    assert s3.uploads() == []
    assert s3.store("other").fetch(digest_of(LARGE)).read_bytes() == LARGE


def test_what_is_there_is_not_sent_again(s3):
    s3.store().put(s3.stage(LARGE), digest_of(LARGE))
    before = s3.proxy.count("PUT")
    s3.store("other").put(s3.stage(LARGE), digest_of(LARGE))
    assert s3.proxy.count("PUT") == before


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "parts"])
def test_two_gateways_that_put_the_same_at_once_make_one_whole_object(s3, content):
    stores = [s3.store(name) for name in ("one", "two")]
    threads = [threading.Thread(target=s.put, args=(s3.stage(content), digest_of(content))) for s in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert s3.objects() == {key_of(content): len(content)}
    assert s3.uploads() == []
    assert all(store.locate(digest_of(content)) for store in stores)


def test_a_service_without_conditions_is_put_to_all_the_same(s3):
    s3.proxy.faults.append(Fault("PUT", answer=(501, "NotImplemented")))
    store = s3.store()
    store.put(s3.stage(SMALL), digest_of(SMALL))
    assert s3.objects() == {key_of(SMALL): len(SMALL)}
    store.put(s3.stage(b"another"), digest_of(b"another"))
    assert s3.proxy.count("PUT") == 3, "it was asked once"


def test_a_damaged_object_is_never_served_and_the_next_upload_mends_it(s3):
    digest = s3.put(SMALL)
    s3.client.put_object(Bucket=BUCKET, Key=s3.prefix + key_of(SMALL), Body=SMALL[::-1])
    other = s3.store("other")
    with pytest.raises(Unavailable, match="damaged") as raised:
        other.fetch(digest)
    assert raised.value.code == "artifact_damaged"
    assert other.locate(digest) is None
    assert s3.copies("other") == []
    other.put(s3.stage(SMALL), digest)
    assert s3.store("third").fetch(digest).read_bytes() == SMALL


@pytest.mark.parametrize("answer", PASSING, ids=lambda a: f"{a[0]}-{a[1]}")
def test_a_service_that_stumbles_is_asked_again(s3, answer):
    for method in ("HEAD", "PUT", "GET"):
        s3.proxy.faults.append(Fault(method, answer=answer, times=2))
    s3.store().put(s3.stage(SMALL), digest_of(SMALL))
    assert s3.store("other").fetch(digest_of(SMALL)).read_bytes() == SMALL
    assert (s3.proxy.count("HEAD"), s3.proxy.count("PUT"), s3.proxy.count("GET")) == (3, 3, 3)


def test_parts_are_tried_for_themselves(s3):
    s3.proxy.faults += [
        Fault("POST", "uploads", answer=(503, "SlowDown")),
        Fault("PUT", "partNumber=2", answer=(500, "InternalError")),
        Fault("PUT", "partNumber=3", silent=True),
    ]
    s3.store(limits=WATCHFUL).put(s3.stage(LARGE), digest_of(LARGE))
    assert [s3.proxy.count("PUT", f"partNumber={n}") for n in (1, 2, 3)] >= [1, 2, 2]
    assert s3.store("other").fetch(digest_of(LARGE)).read_bytes() == LARGE


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "parts"])
def test_an_upload_whose_last_answer_is_lost_is_an_upload(s3, content):
    last = Fault("POST", "uploadId=", lose_answer=True) if content is LARGE else Fault("PUT", lose_answer=True)
    s3.proxy.faults.append(last)
    s3.store().put(s3.stage(content), digest_of(content))
    assert s3.objects() == {key_of(content): len(content)}


@pytest.mark.parametrize("fault", [{"reset_after": 3_000_000}, {"stall_after": 3_000_000}], ids=["reset", "silence"])
def test_a_fetch_that_breaks_goes_on_where_it_broke(s3, fault):
    s3.put(LARGE)
    s3.proxy.faults.append(Fault("GET", **fault, times=2))
    assert s3.store("other", limits=WATCHFUL).fetch(digest_of(LARGE)).read_bytes() == LARGE
    assert s3.proxy.count("GET") >= 3


@pytest.mark.parametrize("fault", [{"answer": (503, "SlowDown")}, {"silent": True}, {"lose_answer": True}])
def test_a_service_that_does_not_recover_is_given_up_in_time_with_a_plain_sentence(s3, fault):
    digest = s3.put(SMALL)
    store = s3.store("other", limits=replace(PATIENT, silence_s=0.2, patience_s=0.5))
    s3.proxy.faults += [Fault(method, **fault, times=1000) for method in ("GET", "HEAD", "DELETE")]
    staged = s3.stage(b"new")
    calls = (
        lambda: store.fetch(digest),
        store.digests,
        lambda: store.delete(digest),
        lambda: store.put(staged, "0" * 64),
    )
    for call in calls:
        with pytest.raises(Unavailable) as raised:
            call()
        assert_tells_nothing(raised.value)
    assert staged.exists()
    assert store.locate(digest) is None
    assert s3.copies("other") == []


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "parts"])
def test_an_upload_that_fails_for_good_leaves_nothing(s3, content):
    s3.proxy.faults += [Fault("PUT", answer=(500, "InternalError"), times=1000)]
    store = s3.store(limits=replace(PATIENT, patience_s=0.3))
    staged = s3.stage(content)
    with pytest.raises(Unavailable) as raised:
        store.put(staged, digest_of(content))
    assert_tells_nothing(raised.value)
    assert_nothing_is_left(s3)
    assert staged.exists()


def test_a_file_that_is_not_what_its_digest_says_is_not_taken(s3):
    """The service compares: bytes that changed on their way never get a name."""
    store = s3.store(limits=replace(PATIENT, patience_s=0.3))
    with pytest.raises(Unavailable):
        store.put(s3.stage(SMALL), digest_of(b"something else"))
    assert_nothing_is_left(s3)


@pytest.mark.parametrize("wrong", ["secret", "key", "none", "bucket"])
def test_wrong_credentials_are_our_fault_and_are_said_at_once_to_the_operator_alone(s3, monkeypatch, caplog, wrong):
    if wrong != "none":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody" if wrong == "key" else ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nonsense" if wrong == "secret" else SECRET_KEY)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(s3.folder / "none"))
    if wrong == "bucket":
        s3.place = replace(s3.place, bucket="another-bucket")
    store = s3.store(session=None)
    digest = digest_of(SMALL)
    for call in (lambda: store.put(s3.stage(SMALL), digest), store.digests, lambda: store.open(digest)):
        with pytest.raises(Unavailable) as raised:
            call()
        assert_tells_nothing(raised.value)
    assert len(s3.proxy.requests) <= 4, "it is not asked again and again"
    assert {record.message for record in caplog.records} == {"artifact_store_failed"}
    assert {record.meaning for record in caplog.records} == {"refused"}
    assert SECRET_KEY not in caplog.text


def test_a_refusal_of_the_service_is_not_tried_again(s3):
    s3.proxy.faults.append(Fault("GET", answer=(403, "AccessDenied"), times=10))
    with pytest.raises(Unavailable) as raised:
        s3.store().fetch(digest_of(SMALL))
    assert_tells_nothing(raised.value)
    assert s3.proxy.count("GET") == 1


def test_a_full_service_is_storage_full(s3):
    s3.proxy.faults.append(Fault("PUT", answer=(507, "XMinioStorageFull")))
    with pytest.raises(StorageFull, match="is full"):
        s3.store().put(s3.stage(SMALL), digest_of(SMALL))


def test_closing_ends_the_waiting(s3):
    s3.proxy.faults.append(Fault("GET", answer=(503, "SlowDown"), times=10**6))
    store = s3.store(limits=replace(PATIENT, patience_s=600))
    raised = []

    def fetch() -> None:
        with pytest.raises(Unavailable) as info:
            store.fetch(digest_of(SMALL))
        raised.append(info.value.code)

    thread = threading.Thread(target=fetch)
    thread.start()
    store.close()
    thread.join(timeout=30)
    assert raised == ["artifact_store"]


def test_reading_that_breaks_says_so_and_never_ends_as_if_it_were_whole(s3):
    s3.put(LARGE)
    s3.proxy.faults += [Fault("GET", reset_after=100_000), Fault("GET", stall_after=100_000)]
    for _ in range(2):
        reader = s3.store("other", limits=WATCHFUL).open(digest_of(LARGE))
        with pytest.raises(Unavailable) as raised:
            list(iter(lambda: reader.read(65536), b""))  # noqa: B023 - used up here
        assert raised.value.code == "artifact_store"
        reader.close()


def test_a_presigned_url_gives_the_file_to_anybody_for_a_while(s3):
    store = s3.store()
    store.put(s3.stage(SMALL), digest_of(SMALL))
    url = store.presign(digest_of(SMALL), seconds=60)
    assert SECRET_KEY not in url
    with urlopen(url, timeout=30) as answer:
        assert answer.read() == SMALL
    with pytest.raises(ValueError, match="digest"):
        store.presign("../secret", seconds=60)


def test_unfinished_uploads_are_ended_when_they_are_old(s3):
    s3.client.create_multipart_upload(Bucket=BUCKET, Key=f"{s3.prefix}{key_of(LARGE)}")
    store = s3.store()
    assert store.abandon_uploads(older_than_s=3600) == 0
    assert len(s3.uploads()) == 1
    assert store.abandon_uploads(older_than_s=0) == 1
    assert s3.uploads() == []


def test_what_others_keep_in_the_bucket_is_not_ours(s3):
    for key in (
        "readme",
        "sha256/ab/short",
        f"sha256/ff/{'0' * 64}",
        f"{s3.prefix}readme",
        f"{s3.prefix}sha256/zz/{'a' * 64}",
    ):
        s3.client.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    store = s3.store()
    store.put(s3.stage(SMALL), digest_of(SMALL))
    assert store.digests() == {digest_of(SMALL)}
