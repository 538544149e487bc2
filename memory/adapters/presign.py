"""Links to objects that carry their own permission: AWS's query-string signature, version 4, for S3-like stores."""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

LONGEST_SECONDS = 7 * 24 * 3600


def presigned(
    method: str,
    url: str,
    *,
    region: str,
    access_key: str,
    secret_key: str,
    seconds: int,
    headers: Mapping[str, str] | None = None,
    answer_headers: Mapping[str, str] | None = None,
    at: datetime | None = None,
) -> str:
    """`url` (path already percent-encoded, no query) as a link that works for `seconds`.

    `headers` must come with the request just so. `answer_headers` are `response-…` parameters: headers that the store
    puts on its answer. The store's own client library signs paths only, so neither could be part of its links.
    """
    moment = (at or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    parts = urlsplit(url)
    signed = {**{name.lower(): value.strip() for name, value in (headers or {}).items()}, "host": parts.netloc}
    names = ";".join(sorted(signed))
    parameters = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{access_key}/{scope}",
        "X-Amz-Date": moment,
        "X-Amz-Expires": str(max(1, min(seconds, LONGEST_SECONDS))),
        "X-Amz-SignedHeaders": names,
        **(answer_headers or {}),
    }
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(parameters.items()))
    lines = [f"{name}:{signed[name]}" for name in sorted(signed)]
    request = "\n".join([method, parts.path, query, *lines, "", names, "UNSIGNED-PAYLOAD"])
    to_sign = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(request.encode()).hexdigest()])
    signature = _hmac(_signing_key(secret_key, scope), to_sign).hex()
    return f"{url}?{query}&X-Amz-Signature={signature}"


def _signing_key(secret_key: str, scope: str) -> bytes:
    key = f"AWS4{secret_key}".encode()
    for part in scope.split("/"):
        key = _hmac(key, part)
    return key


def _hmac(key: bytes, message: str) -> bytes:
    return hmac.digest(key, message.encode(), "sha256")
