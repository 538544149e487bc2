"""Where a bucket is: its address in either style, and the region that its store signs for."""

import urllib.error
import urllib.request
from typing import Literal
from urllib.parse import quote, urlsplit

Addressing = Literal["path", "virtual"]

# What a store that names no region takes, whatever it is really called.
USUAL_REGION = "us-east-1"
_ASK_SECONDS = 5.0


def address(endpoint: str, bucket: str, addressing: Addressing) -> str:
    """`https://store/bucket`, or `https://bucket.store`."""
    if addressing == "path":
        return f"{endpoint}/{quote(bucket)}"
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{bucket}.{parts.netloc}{parts.path}"


def region_of(bucket_url: str) -> str | None:
    """The region that the store names for this bucket, to anybody; None when it does not answer."""
    request = urllib.request.Request(bucket_url, method="HEAD")  # noqa: S310  the operator's own address
    try:
        with urllib.request.urlopen(request, timeout=_ASK_SECONDS) as answer:  # noqa: S310
            headers = answer.headers
    except urllib.error.HTTPError as refused:
        headers = refused.headers
        refused.close()
    except OSError:
        return None
    return headers.get("x-amz-bucket-region") or USUAL_REGION
