"""The signature against the worked example of AWS's own documentation; real stores judge it in test_objects."""

from datetime import UTC, datetime

from memory.adapters.presign import presigned

AT = datetime(2013, 5, 24, tzinfo=UTC)


def link(seconds: int, **answer_headers: str) -> str:
    return presigned(
        "GET",
        "https://examplebucket.s3.amazonaws.com/test.txt",
        region="us-east-1",
        access_key="AKIAIOSFODNN7EXAMPLE",
        secret_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        seconds=seconds,
        answer_headers=answer_headers,
        at=AT,
    )


def test_the_documented_example() -> None:
    assert link(86400) == (
        "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
        "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


def test_a_link_lasts_a_week_at_most_and_a_second_at_least() -> None:
    assert "X-Amz-Expires=604800&" in link(10**9)
    assert "X-Amz-Expires=1&" in link(0)


def test_what_the_answer_says_is_signed() -> None:
    plain, named = link(60), link(60, **{"response-content-type": "a/b c"})
    assert "response-content-type=a%2Fb%20c" in named
    assert plain.rpartition("=")[2] != named.rpartition("=")[2]
