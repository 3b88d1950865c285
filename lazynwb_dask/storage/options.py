"""How to reach a store: the ``storage_options`` of a call, with the secrets kept apart.

An `Options` travels in graphs, so it carries no secret. Values that are known to be harmless (an endpoint,
``anon``, ...) are kept as they are. All others go into a vault of this process, and only their token
travels. Another process finds them in its own vault, if `cluster.secrets_plugin.share` has put them there.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import pickle
import secrets
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

from fsspec import available_protocols, get_filesystem_class, register_implementation
from fsspec.core import split_protocol, url_to_fs

from lazynwb_dask.errors import NWBPermissionError
from lazynwb_dask.model.source import links

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

# Sockets are limited by the reader itself, so the filesystems' own pools must not be narrower.
POOL = 1024
# Seconds to wait for a connection, and for any byte of a response, unless the reader is stricter.
CONNECT_TIMEOUT, READ_TIMEOUT = 20, 60

# Options that can be shown and sent to anyone. What isn't listed is treated as a secret.
_PUBLIC = frozenset({
    "anon", "access", "block_size", "cache_regions", "cache_type", "consistency",
    "default_block_size", "default_cache_type", "default_fill_cache", "encoded",
    "listings_expiry_time", "local_expiry_check", "max_concurrency", "max_paths", "profile",
    "project", "region_name", "requester_pays", "same_scheme", "simple_links", "target_protocol",
    "trust_env", "use_listings_cache", "use_ssl", "verify", "version_aware", "account_name",
    "addressing_style", "connect_timeout", "max_attempts", "max_pool_connections", "mode",
    "parameter_validation", "read_timeout", "signature_version", "tcp_keepalive",
    "total_max_attempts", "use_dualstack_endpoint", "use_fips_endpoint",
})  # fmt: skip
_PUBLIC_URLS = frozenset({"endpoint_url"})
_NESTED = frozenset({"client_kwargs", "config_kwargs", "s3", "retries", "target_options", "remote_options"})
# Names that gcsfs takes in place of a token.
_PUBLIC_TOKENS = frozenset({"anon", "google_default", "cache", "cloud", "browser"})
# How a filesystem instance is kept is decided here; loops and sessions belong to one process.
_DROPPED = frozenset({"asynchronous", "loop", "skip_instance_cache"})
# Any of these says which S3 credentials to use, or that none are wanted.
_S3_IDENTITY = frozenset({"anon", "key", "secret", "token", "username", "password", "session"})

_SAME_STORE = ({"s3", "s3a"}, {"gs", "gcs"}, {"az", "abfs", "abfss"})

_PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")

register_implementation("dandi", "lazynwb_dask.storage.dandi_filesystem.DandiFileSystem", clobber=True)

_KEY = secrets.token_bytes(32)
_vault: dict[str, dict[str, Any]] = {}
_anonymous: set[tuple[object, ...]] = set()


class Options:
    """The storage options of a call: fsspec's keyword arguments for every file, or a dict of such dicts.

    The latter's keys are protocols (``"s3"``) or beginnings of URLs (``"https://host/private"``); the
    longest that fits is used. Equal options have an equal `token`. It reveals nothing, and is stable within
    one process; without secrets in the options also between processes.

    >>> Options({"anon": False, "key": "me", "secret": "hush"})
    Options({"anon": false}, and 2 secrets)
    """

    __slots__ = ("_parts", "token")

    token: str
    # (prefix, public options as JSON, token of the secret ones, their number) for each prefix
    _parts: tuple[tuple[str, str, str, int], ...]

    def __init__(self, storage_options: Mapping[str, Any] | None = None) -> None:
        parts = []
        for prefix, given in _by_prefix(storage_options or {}):
            public, secret = _separate(given)
            token = ""
            if secret:
                token = _fingerprint(secret)
                _vault[token] = secret
            parts.append((prefix, json.dumps(public, sort_keys=True), token, _leaves(secret)))
        self._restore(tuple(sorted(parts)))

    def _restore(self, parts: tuple[tuple[str, str, str, int], ...]) -> None:
        self._parts = parts
        self.token = hashlib.sha256(repr(parts).encode()).hexdigest()[:32]

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (self._parts,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Options) and other.token == self.token

    def __hash__(self) -> int:
        return hash(self.token)

    def __dask_tokenize__(self) -> str:
        return self.token

    def __repr__(self) -> str:
        shown = []
        for prefix, public, _, hidden in self._parts:
            more = f", and {hidden} secret{'s' * (hidden > 1)}" if hidden else ""
            shown.append(f"{prefix + ': ' if prefix else ''}{public}{more}")
        return f"Options({'; '.join(shown)})"

    def filesystem(self, url: str) -> tuple[AbstractFileSystem, str]:
        """The filesystem of a URL, chained ones included, and the path within it.

        fsspec keeps the filesystem: the same for the same options. NWBPermissionError if the options have
        secrets that are unknown in this process.
        """
        keywords = self._keywords(url)
        if "::" in url and len(links(url)) == 1:  # no chain: fsspec must not split the name
            kind = get_filesystem_class(_protocol(url))
            filesystem = kind(**{**kind._get_kwargs_from_urls(url), **keywords})
            return filesystem, str(kind._strip_protocol(url))
        filesystem, path = url_to_fs(url, **keywords)
        return filesystem, str(path)

    def anonymous(self, url: str) -> bool:
        """Use no credentials for S3 from now on. False if the options say which credentials to use."""
        options = self._resolved(url)
        if _protocol(url) not in ("s3", "s3a") or _has_identity(options):
            return False
        if _identity(options) in _anonymous:
            return True
        filesystem, _ = self.filesystem(url)
        _anonymous.add(_identity(options))
        # It would go on without credentials even when there are some, later in this process.
        getattr(type(filesystem), "_cache", {}).pop(filesystem._fs_token, None)
        return True

    @property
    def secrets(self) -> dict[str, dict[str, Any]]:
        """The secrets that this process holds, by their tokens."""
        return {token: _vault[token] for _, _, token, _ in self._parts if token in _vault}

    def exposes_secrets(self, url: str) -> bool:
        """Whether secrets would be sent to a web host that were not given for it by name."""
        if _protocol(url) not in ("http", "https"):
            return False
        fitting = [part for part in self._parts if _fits(part[0], url)]
        prefix, _, token, _ = max(fitting, key=lambda part: len(part[0]), default=("", "", "", 0))
        return bool(token) and "://" not in prefix

    def _keywords(self, url: str) -> dict[str, Any]:
        """The arguments for fsspec's ``url_to_fs``."""
        if len(links(url)) == 1:
            return _completed(_protocol(url), self._resolved(url))
        keywords: dict[str, Any] = {}
        if self._parts and not self._parts[0][0]:
            keywords.update(self._resolved(url))  # fsspec's own rules for one dict and a chain
        for link in links(url):
            protocol = split_protocol(link)[0] or link
            given = {**self._resolved(link, only_prefixed=True), **keywords.get(protocol, {})}
            if completed := _completed(protocol, given):
                keywords[protocol] = completed
        return keywords

    def _resolved(self, url: str, *, only_prefixed: bool = False) -> dict[str, Any]:
        """The options that were given for a URL, secrets included."""
        fitting = [part for part in self._parts if _fits(part[0], url)]
        if not fitting:
            return {}
        prefix, public, token, _ = max(fitting, key=lambda part: len(part[0]))
        if only_prefixed and not prefix:
            return {}
        if token and token not in _vault:
            raise NWBPermissionError(
                "The credentials given in storage_options are unknown in this process, since "
                "secrets never travel in a graph. Either give the workers credentials of their own "
                "(their environment, or a credentials file), or create the dask.distributed "
                "Client before the files are named, which shares the secrets with its workers."
            )
        return _merged(json.loads(public), _vault.get(token, {}))


def _unpickle(parts: tuple[tuple[str, str, str, int], ...]) -> Options:
    options = Options.__new__(Options)
    options._restore(parts)
    return options


def add_secrets(secrets: Mapping[str, dict[str, Any]]) -> None:
    """Put secrets that another process sent into this one's vault."""
    _vault.update(secrets)


def _by_prefix(given: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(given, Mapping):
        raise TypeError(f"storage_options must be a dict, not {type(given).__name__}")
    known = set(available_protocols())
    for key, value in given.items():
        if isinstance(key, str) and (key in known or "://" in key) and not isinstance(value, Mapping):
            raise TypeError(f"storage_options[{key!r}] must be a dict, not {type(value).__name__}")
    if given and all(
        isinstance(value, Mapping) and isinstance(key, str) and (key in known or "://" in key)
        for key, value in given.items()
    ):
        yield from given.items()
    elif given:
        yield "", given


def _protocol(url: str) -> str:
    return split_protocol(url)[0] or "file"


def _fits(prefix: str, url: str) -> bool:
    """Whether options given for `prefix` are meant for `url`.

    A prefix ends where a part of the URL ends: what was given for one host or bucket must never be sent to
    another whose name only begins alike.
    """
    if "://" in prefix:
        rest = url[len(prefix) :]
        return url.startswith(prefix) and (prefix.endswith("/") or rest[:1] in ("", "/", "?"))
    protocol = _protocol(url)
    if not prefix:
        return protocol not in ("file", "local", "dandi")  # a disk and an archive have no options
    return (
        prefix == protocol
        or any(prefix in store and protocol in store for store in _SAME_STORE)
        or (prefix == "http" and protocol == "https")  # never the other way: in clear text
    )


def _separate(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split options into those that can be shown and those that can't."""
    public: dict[str, Any] = {}
    secret: dict[str, Any] = {}
    known = set(available_protocols())
    for name, value in options.items():
        if name in _DROPPED:
            continue
        if isinstance(value, Mapping) and (name in _NESTED or name in known):
            shown, hidden = _separate(value)
            if shown or not hidden:
                public[name] = shown
            if hidden:
                secret[name] = hidden
        elif _is_public(name, value):
            public[name] = value
        else:
            secret[name] = value
    return public, secret


def _is_public(name: str, value: object) -> bool:
    if value is None or isinstance(value, bool):
        return True
    if not isinstance(value, (int, float, str)):
        return False
    if name in _PUBLIC_URLS:
        parts = urlsplit(str(value))
        return not (parts.query or parts.fragment or "@" in parts.netloc)
    return name in _PUBLIC or (name == "token" and value in _PUBLIC_TOKENS)


def _leaves(secret: Mapping[str, Any]) -> int:
    return sum(_leaves(v) if isinstance(v, Mapping) else 1 for v in secret.values())


def _fingerprint(secret: Mapping[str, Any]) -> str:
    """A name for secrets: the same for the same content, and no way back without this process."""
    return hmac.new(_KEY, _canonical(secret), hashlib.sha256).hexdigest()


def _canonical(value: object) -> bytes:
    if isinstance(value, Mapping):
        items = sorted((str(key), _canonical(item)) for key, item in value.items())
        return pickle.dumps(items)
    try:
        return pickle.dumps(value)
    except Exception:  # a session, a function in a notebook: itself, and the vault keeps it alive
        return f"{type(value).__qualname__}-{id(value)}".encode()


def _merged(one: dict[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(one)
    for name, value in other.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), dict)
        merged[name] = _merged(merged[name], value) if both else value
    return merged


def _completed(protocol: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of one filesystem with what the reader needs, unless the user said otherwise."""
    if protocol in ("s3", "s3a"):
        config = {
            "max_pool_connections": POOL,
            "signature_version": "s3v4",  # for signed URLs too, which else are of the old kind
            "connect_timeout": CONNECT_TIMEOUT,
            "read_timeout": READ_TIMEOUT,
            "retries": {"total_max_attempts": 1, "mode": "standard"},  # the reader retries itself
        }
        options = {**options, "config_kwargs": {**config, **(options.get("config_kwargs") or {})}}
        if not _has_identity(options) and _identity(options) in _anonymous:
            options["anon"] = True
    elif protocol in ("http", "https", "dandi"):
        client = dict(options.get("client_kwargs") or {})
        if hasattr(client.get("auth"), "encode") and "auth" not in options:
            # A session's own auth would follow a redirect to another host; a header does not.
            headers = {"Authorization": client.pop("auth").encode(), **options.get("headers", {})}
            options = {**options, "headers": headers, "client_kwargs": client}
        if "get_client" not in options and "connector" not in client:
            proxied = "trust_env" not in client and any(map(os.environ.get, _PROXIES))
            options = {**options, "get_client": _proxied_session if proxied else _http_session}
    return options


async def _http_session(**keywords: Any) -> Any:
    """An aiohttp session whose pool is as wide as the reader needs."""
    import aiohttp

    keywords.pop("loop", None)
    limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT)
    keywords.setdefault("timeout", limits)  # of listings; reads have their own
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=POOL), **keywords)
    if hasattr(session, "_retry_connection"):
        session._retry_connection = False  # it would repeat requests that nobody counts
    return session


async def _proxied_session(**keywords: Any) -> Any:
    """One that heeds the environment's proxies, also those without ``http://``, and ports in NO_PROXY. It takes
    no passwords from a netrc file: these are sent to hosts that nobody gave them for, and spoil signed URLs."""
    import aiohttp
    from yarl import URL

    class Request(aiohttp.ClientRequest):
        def update_auth(self, auth: Any, trust_env: bool = False) -> None:  # aiohttp before 3.13
            super().update_auth(auth)

        def update_proxy(self, proxy: Any, proxy_auth: Any, proxy_headers: Any) -> None:
            if proxy is not None and "://" not in str(proxy):
                whole = URL(f"http://{str(proxy).removeprefix('//')}")
                proxy = whole.with_user(None)
                proxy_auth = aiohttp.BasicAuth(whole.user, whole.password or "") if whole.user else None
            if proxy is not None and proxy_bypass(f"{self.url.host}:{self.url.port}"):
                proxy = proxy_auth = None
            super().update_proxy(proxy, proxy_auth, proxy_headers)

    session = await _http_session(trust_env=True, request_class=Request, **keywords)
    vars(session)["_get_netrc_auth"] = lambda host: None
    return session


def _has_identity(options: Mapping[str, Any]) -> bool:
    client = options.get("client_kwargs") or {}
    given = {name for name, value in options.items() if value is not None}
    return not _S3_IDENTITY.isdisjoint(given) or any(name.startswith("aws_") for name in client)


def _identity(options: Mapping[str, Any]) -> tuple[object, ...]:
    """Where credentials would have been looked for: setting AWS variables later changes it."""
    names = sorted(name for name in os.environ if name.startswith("AWS_"))
    environment = hash(tuple((name, os.environ[name]) for name in names))
    return options.get("profile"), environment
