"""Options reach the right store, and secrets stay where they were given."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from servers import RangeServer, S3Server

from lazynwb_dask.cluster.secrets_plugin import share
from lazynwb_dask.errors import NWBPermissionError, NWBReadError
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.sources.expand import expand
from lazynwb_dask.storage import Request, Settings, fetch, open_source, retried
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.options import Options

QUICK = Settings(timeout=10, retries=1, deadline=20, pause=0.01)
SECRET = "wJalrXUtnFEMI-hush"


def everything_shown(value: object) -> str:
    """All that a repr, a string or a pickle of something gives away."""
    return repr(value) + str(value) + pickle.dumps(value).decode("latin1")


# --- secrets

SECRETIVE: list[dict[str, Any]] = [
    {"key": "me", "secret": SECRET},
    {"token": SECRET},
    {"headers": {"Authorization": f"token {SECRET}"}},
    {"client_kwargs": {"aws_secret_access_key": SECRET, "region_name": "eu-west-1"}},
    {"s3": {"secret": SECRET}, "https://host/x": {"headers": {"X-Key": SECRET}}},
    {"endpoint_url": f"https://me:{SECRET}@host"},
    {"endpoint_url": f"https://host/?sig={SECRET}"},
    {"config_kwargs": {"proxies": {"http": f"http://me:{SECRET}@proxy"}}},
    {"s3_additional_kwargs": {"SSECustomerKey": SECRET}},
    {"something_new": SECRET},
    {"anon": [SECRET]},
    {"target_options": {"password": SECRET}},
]


@pytest.mark.parametrize("given", SECRETIVE, ids=lambda given: next(iter(given)))
def test_no_secret_is_in_repr_token_or_pickle(given: dict[str, Any]) -> None:
    options = Options(given)
    assert SECRET not in everything_shown(options)
    assert SECRET not in options.token
    assert len(pickle.dumps(options)) < 600
    assert options.filesystem is not None


def test_public_options_are_kept_in_sight() -> None:
    given = {"anon": True, "endpoint_url": "http://host:9000", "client_kwargs": {"verify": False}}
    text = repr(Options(given))
    assert all(word in text for word in ("anon", "http://host:9000", "verify"))
    assert "secret" not in text


def test_equal_options_are_equal_and_others_are_not() -> None:
    a = Options({"key": "k", "secret": SECRET, "anon": False})
    b = Options({"anon": False, "secret": SECRET, "key": "k"})
    assert a == b
    assert hash(a) == hash(b)
    assert a.token == b.token == pickle.loads(pickle.dumps(a)).token
    for other in ({"key": "k", "secret": "another", "anon": False}, {"anon": False}, None):
        assert Options(other) != a
    assert Options(None) == Options({})


def test_options_without_secrets_have_one_token_in_all_processes() -> None:
    code = "from lazynwb_dask.storage.options import Options; print(Options({'anon': True}).token)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == Options({"anon": True}).token


def test_secrets_reach_the_filesystem_after_a_pickle() -> None:
    options = pickle.loads(pickle.dumps(Options({"s3": {"key": "k", "secret": SECRET}})))
    filesystem, path = options.filesystem("s3://bucket/a.nwb")
    assert (filesystem.key, filesystem.secret, path) == ("k", SECRET, "bucket/a.nwb")
    assert options.filesystem("s3://bucket/b.nwb")[0] is filesystem


def test_a_process_without_the_secrets_says_what_to_do() -> None:
    data = pickle.dumps(Options({"key": "k", "secret": SECRET}))
    code = f"""
        import pickle
        options = pickle.loads({data!r})
        try:
            options.filesystem("s3://bucket/a.nwb")
        except Exception as error:
            print(type(error).__name__, error)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.startswith("NWBPermissionError")
    assert "environment" in out
    assert "Client before" in out


@pytest.mark.parametrize("status", [403, 404, 412, 416, 500, 200])
def test_no_error_shows_a_signature_or_a_header(range_server: RangeServer, status: int) -> None:
    range_server.put("a.nwb", bytes(5000))
    range_server.behaviour.fault_rate = {str(status): 1.0} if status != 200 else {}
    range_server.behaviour.ignore_range = status == 200
    host = range_server.endpoint.removeprefix("http://")
    url = f"http://me:{SECRET}@{host}/a.nwb?X-Amz-Signature={SECRET}"
    options = Options({"headers": {"X-Api-Key": SECRET}})
    with pytest.raises(NWBReadError) as caught:
        fetch(Source(url, 5000, '"x"'), [Request(10, 20, print)], FileAccess(options, QUICK))
    error: BaseException | None = caught.value
    assert "/a.nwb" in str(error)
    while error is not None:  # the whole chain: a logger shows it all
        assert SECRET not in everything_shown(error)
        error = error.__cause__ or error.__context__
    assert range_server.log[-1].headers["X-Api-Key"] == SECRET


def test_no_error_of_s3_shows_a_key(s3_server: S3Server) -> None:
    s3_server.put("lab", "a.nwb", bytes(10))
    options = Options({**s3_server.storage_options, "secret": SECRET, "key": f"AKIA{SECRET}"})
    for url in ("s3://lab/no.nwb", "s3://nolab/a.nwb"):
        with pytest.raises(NWBReadError) as caught:
            open_source(Source(url), 10, FileAccess(options, QUICK))
        assert SECRET not in everything_shown(caught.value)
        assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/data/a?b#c.nwb", "/data/a?b#c.nwb"),
        ("https://u:p@h:80/a.nwb?sig=1#x", "https://h:80/a.nwb"),
        ("s3://bucket/a.nwb", "s3://bucket/a.nwb"),
        ("simplecache::https://t@h/a?sig=1", "simplecache::https://h/a"),
        ("zip://a.nwb::https://h/a.zip?sig=1", "zip://a.nwb::https://h/a.zip"),
        ("abfs://box@account.dfs.core.windows.net/a", "abfs://box@account.dfs.core.windows.net/a"),
    ],
)
def test_messages_show_urls_without_what_is_secret(url: str, expected: str) -> None:
    assert shown(url) == expected


def test_options_that_dont_fit_are_an_error_without_their_values(s3_server: S3Server) -> None:
    options = Options({"client_kwargs": {"no_such": SECRET}, "key": "k", "secret": SECRET})
    with pytest.raises(NWBReadError) as caught:
        open_source(Source("s3://lab/a"), 10, FileAccess(options, QUICK))
    assert SECRET not in everything_shown(caught.value)
    with pytest.raises(NWBReadError, match="Protocol not known"):
        open_source(Source("nosuch://lab/a"), 10, FileAccess(Options(), QUICK))
    with pytest.raises(TypeError, match="must be a dict"):
        Options("anon")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [("gs://lab/a", "gcsfs", "gcs"), ("az://lab/a", "adlfs", "azure"), ("abfs://lab/a", "adlfs", "azure")],
)
def test_a_store_whose_client_is_not_installed_is_an_error_that_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, url: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(NWBReadError, match=rf"{url}: needs {package}, .* 'lazynwb-dask\[{extra}\]'"):
        open_source(Source(url), 10, FileAccess(Options(), QUICK))


# --- which options for which URL


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://host/private/a", "b"),
        ("https://host/private", "b"),
        ("https://host/private?x=1", "b"),
        ("https://host/privateer/a", "a"),
        ("https://host/a", "a"),
        ("https://host.evil.org/private/a", None),
        ("https://host@evil.org/a", None),
        ("http://host/a", None),
    ],
)
def test_the_longest_fitting_prefix_wins_and_ends_at_a_border(url: str, expected: str | None) -> None:
    options = Options(
        {
            "https://host": {"headers": {"X": "a"}},
            "https://host/private": {"headers": {"X": "b"}},
            "s3": {"anon": True},
        }
    )
    headers = options.filesystem(url)[0].kwargs.get("headers", {})
    assert headers.get("X") == expected


def test_options_by_protocol_reach_its_other_names_but_never_clear_text() -> None:
    s3 = Options({"s3": {"anon": True}, "https": {"headers": {"X": "a"}}})
    assert s3.filesystem("s3a://b/k")[0].anon is True
    assert "headers" in s3.filesystem("https://h/a")[0].kwargs
    assert "headers" not in s3.filesystem("http://h/a")[0].kwargs
    both = Options({"http": {"headers": {"X": "a"}}})
    assert "headers" in both.filesystem("https://h/a")[0].kwargs


def test_options_for_a_store_dont_reach_the_disk(tmp_path: Path) -> None:
    (tmp_path / "a.nwb").write_bytes(b"12345")
    options = Options({"key": "k", "secret": SECRET})
    filesystem, path = options.filesystem(str(tmp_path / "a.nwb"))
    assert filesystem.cat_file(path) == b"12345"
    assert "key" not in filesystem.storage_options


def test_each_link_of_a_chain_gets_its_own_options() -> None:
    options = Options({"s3": {"anon": True, "endpoint_url": "http://h:1"}, "simplecache": {}})
    filesystem, path = options.filesystem("simplecache::s3://bucket/a.nwb")
    assert filesystem.fs.anon is True
    assert filesystem.fs.endpoint_url == "http://h:1"
    assert filesystem.fs.config_kwargs["max_pool_connections"] > 64
    assert path == "bucket/a.nwb"
    flat = Options({"s3": {"anon": True}, "check_files": True})
    assert flat.filesystem("simplecache::s3://bucket/a.nwb")[0].fs.anon is True


def test_pools_are_as_wide_as_the_reader_asks_unless_the_user_says_otherwise() -> None:
    s3, _ = Options({"anon": True}).filesystem("s3://b/k")
    assert s3.config_kwargs["max_pool_connections"] >= 64
    narrow = Options({"anon": True, "config_kwargs": {"max_pool_connections": 3}})
    assert narrow.filesystem("s3://b/k")[0].config_kwargs["max_pool_connections"] == 3


@pytest.mark.filterwarnings("ignore:BasicAuth is deprecated")
def test_a_sessions_password_doesnt_follow_a_redirect_to_another_host(range_server: RangeServer) -> None:
    import aiohttp

    with RangeServer({"b.nwb": bytes(100)}) as elsewhere:
        range_server.behaviour.redirects["a.nwb"] = elsewhere.url("b.nwb")
        options = Options({"client_kwargs": {"auth": aiohttp.BasicAuth("me", SECRET)}})
        source, head = open_source(Source(range_server.url("a.nwb")), 10, FileAccess(options, QUICK))
        assert (source.size, head) == (100, bytes(10))
        assert "Authorization" in range_server.log[0].headers
        assert "Authorization" not in elsewhere.log[0].headers


# --- S3 without credentials


def test_s3_falls_back_to_anonymous_where_there_are_no_credentials(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROBE", "anonymous")  # nothing remembered from other tests
    url = s3_server.put("open", "a.nwb", bytes(5000))
    options = Options(s3_server.anonymous)
    begun = time.monotonic()
    source, _ = open_source(Source(url), 10, FileAccess(options, QUICK))
    assert time.monotonic() - begun < 20  # where a metadata service is waited for: minutes
    fetch(source, [Request(i * 1000, i * 1000 + 1, id) for i in range(4)], FileAccess(options, QUICK))
    assert len(expand("s3://open/", FileAccess(options))) == 1
    assert not any("AUTHORIZATION" in entry.headers for entry in s3_server.log)
    assert all(entry.status in (200, 206) for entry in s3_server.log)


def test_many_ranges_fall_back_together(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROBE", "together")
    url = s3_server.put("open", "a.nwb", bytes(3_000_000))
    options, got = Options(s3_server.anonymous), list[memoryview]()
    requests = [Request(i * 300_000, i * 300_000 + 10, got.append) for i in range(10)]
    threads = [
        threading.Thread(target=fetch, args=(Source(url), requests, FileAccess(options, QUICK)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == len(s3_server.log) == 30


def test_listing_falls_back_too(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROBE", "listing")
    s3_server.put("open", "a.nwb", bytes(10))
    assert [s.size for s in expand("s3://open/", FileAccess(Options(s3_server.anonymous)))] == [10]


def test_credentials_that_appear_later_are_used(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROBE", "later")
    url = s3_server.put("open", "a.nwb", bytes(10))
    options = Options(s3_server.anonymous)
    open_source(Source(url), 10, FileAccess(options, QUICK))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    s3_server.signed_only = True
    assert open_source(Source(url), 10, FileAccess(options, QUICK))[0].size == 10


def test_there_is_no_fall_back_for_those_who_ask_for_credentials(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = s3_server.put("open", "a.nwb", bytes(10))
    options = Options({**s3_server.anonymous, "anon": False})
    with pytest.raises(NWBPermissionError, match="anon"):
        open_source(Source(url), 10, FileAccess(options, QUICK))


def test_a_private_object_is_forbidden_without_credentials(s3_server: S3Server) -> None:
    url = s3_server.put("lab", "a.nwb", bytes(10), public=False)
    with pytest.raises(NWBPermissionError, match="credentials"):
        open_source(Source(url), 10, FileAccess(Options({**s3_server.anonymous, "anon": True}), QUICK))
    signed = Options(s3_server.storage_options)
    assert open_source(Source(url), 10, FileAccess(signed, QUICK))[0].size == 10


# --- signed URLs in place of the official client


def test_objects_are_read_by_signed_urls_once_the_bucket_has_answered(s3_server: S3Server) -> None:
    options = Options({**s3_server.storage_options, "use_ssl": True})
    url = s3_server.put("fast", "a b+c.nwb", bytes(range(256)))
    source, _ = open_source(Source(url), 10, FileAccess(options, QUICK))
    got: list[bytes] = []
    fetch(source, [Request(5, 9, lambda v: got.append(bytes(v)))], FileAccess(options, QUICK))
    assert got == [bytes([5, 6, 7, 8])]
    first, second = s3_server.log
    assert "AUTHORIZATION" in first.headers
    assert "X-Amz-Signature" in second.path
    assert second.headers["IF_MATCH"] == source.etag


def test_a_store_that_refuses_signed_urls_is_read_by_the_official_client(range_server: RangeServer) -> None:
    range_server.put("lab/a.nwb", bytes(100_000))

    def refuse(name: str, count: int) -> None:
        signed = count > 0 and "X-Amz-Signature" in range_server.log[-1].path
        range_server.behaviour.forbidden = {"*"} if signed else set()

    range_server.behaviour.before = refuse
    options = Options({"key": "k", "secret": "s", "endpoint_url": range_server.endpoint})
    source, _ = open_source(Source("s3://lab/a.nwb"), 10, FileAccess(options, QUICK))
    for start in (50_000, 60_000, 70_000):
        fetch(source, [Request(start, start + 10, id)], FileAccess(options, QUICK))
    assert [entry.status for entry in range_server.log] == [206, 403, 206, 206, 206]


# --- sharing with a cluster


def _read_on_a_worker(url: str, options: Options) -> tuple[int, str]:
    return len(open_source(Source(url), 10, FileAccess(options, QUICK))[1]), repr(options)


def test_secrets_reach_the_workers_of_a_cluster_and_no_graph(
    s3_server: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    from distributed import Client, LocalCluster

    url = s3_server.put("lab", "a.nwb", bytes(10))
    s3_server.signed_only = True
    options = Options({**s3_server.storage_options, "secret": SECRET})
    share(options)  # no client: nothing happens
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        unknown = client.submit(_read_on_a_worker, url, options)
        with pytest.raises(NWBPermissionError, match="Client before"):
            unknown.result(timeout=120)
        share(Options({"secret": "of another call"}))  # takes the place of no other
        share(options)
        share(options)  # sent once
        known = client.submit(_read_on_a_worker, url, options, pure=False)
        length, text = known.result(timeout=120)
        assert length == 10
        assert SECRET not in text
        plugins = client.run(lambda dask_worker: repr(list(dask_worker.plugins.values())))
        assert "Secrets()" in str(plugins)
        assert SECRET not in str(plugins) + str(client.get_events())
        cluster.scale(2)  # a worker that comes later knows too
        client.wait_for_workers(2, timeout=120)
        late = next(name for name in client.scheduler_info()["workers"] if name not in plugins)
        again = client.submit(_read_on_a_worker, url, options, workers=[late], pure=False)
        assert again.result(timeout=120)[0] == 10
    assert SECRET not in caplog.text


def test_importing_the_reader_imports_no_dask_and_no_client_libraries() -> None:
    heavy = {"dask", "distributed", "s3fs", "aiohttp", "aiobotocore", "botocore"}
    code = f"""
        import sys
        import lazynwb_dask.sources.expand
        from lazynwb_dask.cluster.secrets_plugin import share
        from lazynwb_dask.storage.options import Options
        share(Options({{"anon": True, "secret": "x"}}))
        print(sorted({heavy} & set(sys.modules)))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_listing_is_retried_and_its_errors_are_ours(range_server: RangeServer) -> None:
    calls: list[int] = []

    def shaky(filesystem: Any, path: str) -> str:
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionResetError
        return path

    how = Settings(retries=3, pause=0.01)
    assert retried("memory://x", FileAccess(Options(), how), shaky) == "/x"
    calls.clear()
    with pytest.raises(NWBReadError, match="listing can't be read: 2 attempts"):
        retried("memory://x", FileAccess(Options(), Settings(retries=1, pause=0.01)), shaky)

    def broken(filesystem: Any, path: str) -> str:
        raise ConnectionResetError

    how = Settings(retries=40, deadline=0.3, pause=0.2, longest_pause=0.2)  # pauses are 0.1 s at least
    with pytest.raises(NWBReadError, match=r"listing can't be read: [1-4] attempts"):
        retried("memory://x", FileAccess(Options(), how), broken)
    assert os.environ["AWS_EC2_METADATA_DISABLED"] == "true"
