"""Where a bucket is: its address in either style, and the region that its store signs for."""

import http.client
import urllib.error
import urllib.request
from email.message import Message
from typing import Any, Literal
from urllib.parse import quote, urlsplit

Addressing = Literal["path", "virtual"]

# What a store that names no region takes, whatever it is really called.
USUAL_REGION = "us-east-1"
_ASK_SECONDS = 5.0


class _NowhereElse(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """A signed request is for one host alone."""


_opener = urllib.request.build_opener(_NowhereElse)


def address(endpoint: str, bucket: str, addressing: Addressing) -> str:
    """`https://store/bucket`, or `https://bucket.store`."""
    if addressing == "path":
        return f"{endpoint}/{quote(bucket)}"
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{bucket}.{parts.netloc}{parts.path}"


def region_of(bucket_url: str) -> str | None:
    """The region that the store names for this bucket, to anybody; None when it does not answer."""
    found = _asked(bucket_url)
    return None if found is None else found[1].get("x-amz-bucket-region") or USUAL_REGION


def status_of(url: str) -> int | None:
    """The status with which the store answers; None when it does not."""
    found = _asked(url)
    return None if found is None else found[0]


def _asked(url: str) -> tuple[int, Message] | None:
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310  the operator's own address
    try:
        with _opener.open(request, timeout=_ASK_SECONDS) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as refused:
        refused.close()
        return refused.code, refused.headers
    except (OSError, http.client.error):
        return None
