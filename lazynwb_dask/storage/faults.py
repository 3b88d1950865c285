"""What can go wrong in one attempt to read, without secrets.

Exceptions of the libraries below show whole URLs, signatures included, so they are not passed on.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Literal

Kind = Literal["missing", "forbidden", "changed", "truncated", "transient", "credentials", "other"]

_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})

# By name, so that no client library needs to be imported to classify its exceptions.
_TRANSIENT = frozenset({
    "TimeoutError", "ConnectionError", "ClientConnectionError", "ClientPayloadError",
    "HTTPClientError", "EOFError", "IncompleteRead", "IncompleteReadError", "ResponseParserError",
    "BadStatusLine", "ServerError",
})  # fmt: skip
_NO_CREDENTIALS = frozenset({"NoCredentialsError"})
_BAD_CREDENTIALS = frozenset({
    "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError",
    "NoAuthTokenError", "ProfileNotFound", "SSOError", "LoginError", "RefreshError",
    "DefaultCredentialsError",
})  # fmt: skip
_TRANSIENT_CODES = frozenset({
    "SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling",
    "ThrottlingException", "RequestLimitExceeded",
})  # fmt: skip
_REDIRECTS = {
    "TooManyRedirects": "too many redirects: the server may ask for a login, or for cookies",
    "NonHttpUrlRedirectClientError": "the server redirects to an address that isn't HTTP or HTTPS",
}


class Fault(Exception):
    """Why an attempt failed."""

    def __init__(self, kind: Kind, cause: str, retry_after: float | None = None, advice: str = "") -> None:
        super().__init__(kind, cause)
        self.kind = kind
        self.cause = cause
        self.retry_after = retry_after
        self.advice = advice  # the way out, where it isn't the usual one


def fault_of(error: BaseException) -> Fault:
    """What an exception of any library means, without the details that it may give away."""
    if isinstance(error, Fault):
        return error
    names = {cls.__name__ for cls in type(error).__mro__}
    kind = type(error).__name__
    if names & _NO_CREDENTIALS:
        return Fault("credentials", "no credentials were found")
    if names & _BAD_CREDENTIALS:
        return Fault("forbidden", f"the credentials can't be used ({kind})")
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return Fault("other", "the server's certificate isn't trusted")
    if names & _REDIRECTS.keys():
        return Fault("other", next(_REDIRECTS[name] for name in names if name in _REDIRECTS))
    if "HttpProcessingError" in {cls.__name__ for cls in type(error.__cause__).__mro__}:  # has a made-up status
        return Fault("transient", "the response isn't valid HTTP, or its headers are too long")
    if names & _TRANSIENT:
        return Fault("transient", _broken(error))
    if (status := _status_of(error)) is not None:
        response = getattr(error, "response", None)
        code = response.get("Error", {}).get("Code", "") if isinstance(response, dict) else ""
        about = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
        after = retry_after_of(about.get("HTTPHeaders", {}))
        words = f"HTTP status {status}" + (f", {code}" if code and code != str(status) else "")
        if code in _TRANSIENT_CODES:
            return Fault("transient", words, after)
        return Fault(kind_of(status), words, after)
    if isinstance(error, (FileNotFoundError, IsADirectoryError, NotADirectoryError)):
        return Fault("missing", kind)
    if isinstance(error, PermissionError):
        return Fault("forbidden", kind)
    if isinstance(error, OSError) and error.errno:
        return Fault("other", os.strerror(error.errno))
    if isinstance(error, TypeError) and "unexpected keyword argument" in str(error):  # names it, not its value
        return Fault("other", f"storage_options don't fit: {error}")
    return Fault("other", kind)


def _broken(error: BaseException) -> str:
    """Why there is no connection, or no response. Clients wrap what the system says in errors of their own."""
    inner: Any = error
    for _ in range(4):
        name = type(inner).__name__
        if isinstance(inner, socket.gaierror) or name == "ClientConnectorDNSError":
            return "the name of the host is not known (DNS), or there is no network"
        if isinstance(inner, OSError) and inner.errno == errno.ECONNREFUSED:
            return "the connection was refused: no server runs at this address"
        wrapped = getattr(inner, "kwargs", None)  # of botocore
        inner = (
            getattr(inner, "os_error", None)
            or (wrapped.get("error") if isinstance(wrapped, dict) else None)
            or inner.__cause__
            or inner.__context__
        )
        if inner is None:
            break
    if isinstance(error, TimeoutError):
        return "no response in time"
    return f"the connection broke ({type(error).__name__})"


def _status_of(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    if response is None and error.__cause__ is not None:  # s3fs translates what it lists
        return _status_of(error.__cause__)
    if isinstance(response, dict):  # botocore
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return int(status) if status else None
    for name in ("status", "status_code", "code"):  # aiohttp, azure, gcsfs
        status = getattr(error, name, None)
        if isinstance(status, int) and 100 <= status < 600:
            return status
    return None


def kind_of(status: int) -> Kind:
    if status in _TRANSIENT_STATUS:
        return "transient"
    if status in (404, 410):
        return "missing"
    if status in (401, 403, 407):
        return "forbidden"
    return "changed" if status == 412 else "truncated" if status == 416 else "other"


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    text = headers.get("retry-after")
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):  # a year of many digits
        return None
