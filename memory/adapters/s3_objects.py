"""Originals in a bucket of any store that speaks S3: bounded waits, and what its silence or refusal means."""

import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from urllib.parse import quote

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import S3Store
from pydantic import SecretStr

from memory.adapters.buckets import USUAL_REGION, Addressing, address, region_of, status_of
from memory.adapters.incoming import Incoming
from memory.adapters.objects import AWAY, REFUSED, StoredObjects, attachment, checked_key, media_type
from memory.adapters.presign import presigned
from memory.errors import AppError, Misconfigured, Unavailable

_AUTO = "auto"
# Somebody waits for the answer, so a store that says nothing counts as away soon; what is sent takes as long as the
# line does.
_ANSWER_SECONDS = 15.0
_SENT_SECONDS = 30.0
# What failed at once is tried again, what has cost this long already is not.
_TRIED_AGAIN_SECONDS = 10
_ASK_AGAIN_SECONDS = 5.0
_NO_BUCKET = "the bucket named by S3_BUCKET does not exist"
_OTHERWISE = "the object store does not take such requests; check S3_ENDPOINT_URL, S3_REGION and S3_ADDRESSING"


class S3Objects(StoredObjects):
    """A bucket of any store that speaks S3. Links lead straight to the store.

    The region `auto` is what the store names when it is first asked for something. Each object is sent in one request:
    an upload in parts that a kill breaks off would leave its parts in the bucket, unseen and paid for.
    """

    def __init__(
        self,
        *,
        bucket: str,
        endpoint_url: str | None,
        region: str,
        access_key: SecretStr | None,
        secret_key: SecretStr | None,
        addressing: Addressing = "path",
    ) -> None:
        if access_key is None or secret_key is None:
            raise Misconfigured("S3_BUCKET is set, so S3_ACCESS_KEY and S3_SECRET_KEY must be set too")
        aws = f"https://s3.{USUAL_REGION if region == _AUTO else region}.amazonaws.com"
        self._bucket, self._addressing = bucket, addressing
        self._base = address((endpoint_url or aws).rstrip("/"), bucket, addressing)
        self._access_key, self._secret_key = access_key, secret_key
        self._lock = threading.Lock()
        self._known_region = None if region == _AUTO else region
        self._ask_again_at = 0.0
        self._connected: dict[float, S3Store] = {}

    @property
    def _region(self) -> str | None:
        """None while the store does not say; who asks it for many links in a row waits for that only once."""
        if self._known_region is None and time.monotonic() >= self._ask_again_at:
            self._known_region = region_of(self._base)
            self._ask_again_at = time.monotonic() + _ASK_AGAIN_SECONDS
        return self._known_region

    @property
    def _store(self) -> S3Store:
        return self._patient(_ANSWER_SECONDS)

    def _patient(self, seconds: float) -> S3Store:
        with self._lock:
            if seconds not in self._connected:
                # Until it names its region, whatever is signed is of no use anyway.
                store = self._connect(self._region or USUAL_REGION, seconds)
                if self._known_region is None:
                    return store
                self._connected[seconds] = store
            return self._connected[seconds]

    def _connect(self, region: str, seconds: float) -> S3Store:
        is_virtual = self._addressing == "virtual"
        return S3Store(
            self._bucket,
            endpoint=self._base if is_virtual else self._base.rpartition("/")[0],
            region=region,
            access_key_id=self._access_key.get_secret_value(),
            secret_access_key=self._secret_key.get_secret_value(),
            virtual_hosted_style_request=is_virtual,
            client_options={
                "allow_http": self._base.startswith("http://"),
                "connect_timeout": timedelta(seconds=5),
                # Until the answer begins, sending included; and between its pieces.
                "read_timeout": timedelta(seconds=seconds),
                "timeout": timedelta(seconds=60),
            },
            retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=_TRIED_AGAIN_SECONDS)},
        )

    def _send(self, path: str, incoming: Incoming, size: int | None) -> None:  # noqa: ARG002
        whole = incoming.whole()
        for is_last in (False, False, True):
            try:
                obstore.put(self._patient(_SENT_SECONDS), path, whole, use_multipart=False)
                return
            except AlreadyExistsError:
                # A store that is busy with its own names says conflict; ours are never given twice.
                if is_last:
                    raise

    def _missing(self) -> AppError:
        return Misconfigured(_NO_BUCKET) if self._status() == 404 else super()._missing()

    def _unclear(self) -> AppError:
        wrong = {404: _NO_BUCKET, 401: REFUSED, 403: REFUSED, 301: _OTHERWISE, 307: _OTHERWISE, 400: _OTHERWISE}
        said = wrong.get(self._status() or 0)
        return super()._unclear() if said is None else Misconfigured(said)

    def _status(self) -> int | None:
        """What the store answers when it is asked for the bucket itself: that tells wrong settings from a bad day."""
        return status_of(self._link("HEAD", f"{self._base}/", seconds=60))

    def url(self, key: str, *, filename: str, content_type: str, seconds: int) -> str:
        """A presigned GET that downloads as `filename` and stops working after `seconds` (at most a week)."""
        return self._link(
            "GET",
            self._address(key),
            seconds=seconds,
            answer_headers={
                "response-content-disposition": attachment(filename),
                "response-content-type": media_type(content_type),
            },
        )

    def upload_url(self, key: str, *, content_type: str, size: int, seconds: int) -> str:
        """A presigned PUT; type and length are part of what is signed. Raises Unavailable."""
        if self._region is None:
            raise Unavailable(AWAY)
        headers = {"Content-Type": content_type, "Content-Length": str(size)}
        return self._link("PUT", self._address(key), seconds=seconds, headers=headers)

    def _link(
        self,
        method: str,
        url: str,
        *,
        seconds: int,
        headers: Mapping[str, str] | None = None,
        answer_headers: Mapping[str, str] | None = None,
    ) -> str:
        return presigned(
            method,
            url,
            region=self._region or USUAL_REGION,
            access_key=self._access_key.get_secret_value(),
            secret_key=self._secret_key.get_secret_value(),
            seconds=seconds,
            headers=headers,
            answer_headers=answer_headers,
        )

    def _address(self, key: str) -> str:
        return f"{self._base}/{quote(checked_key(key), safe='/~')}"
