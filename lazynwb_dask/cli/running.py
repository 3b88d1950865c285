"""What all commands have in common: their options, readable errors, and the cluster that they run on."""

from __future__ import annotations

import logging
import os
import queue
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from lazynwb_dask.cli import interrupts, options
from lazynwb_dask.cli.options import Call
from lazynwb_dask.cli.output import FORMATS, ReaderGone, default_format, printable, write
from lazynwb_dask.cli.spelling import spelt

if TYPE_CHECKING:
    import dask.dataframe as dd
    from distributed import Client

    from lazynwb_dask.api.sql import SQLQuery

STARTING = 300  # seconds that worker processes may take to start
CONNECTING = 10  # seconds that a cluster may take to answer

_TAKES: dict[str, Any] = {
    "files": True,
    "stores": False,
    "cluster": False,
    "rows": False,
    "where": True,
    "formats": FORMATS,
}


class Command(click.Command):
    """A command with the common options, which it is given as a `Call`.

    Parameters
    ----------
    example : str
        For its help.
    files, stores, cluster, rows, where : bool
        Whether it takes files, options of stores alone, a cluster, what `read_nwb` takes, a condition on rows.
    formats : sequence of str
        In which it can print; empty if it prints no data.
    """

    def __init__(self, name: str | None, *, example: str, **kwargs: Any) -> None:
        takes = {key: kwargs.pop(key, default) for key, default in _TAKES.items()}
        super().__init__(name, **kwargs)
        self.epilog = "\n".join(["\b", "Example:", *[f"  {line}" for line in example.splitlines()]])
        files = options.of_files() if takes["files"] else [options.of_stores()] * takes["stores"]
        table = options.of_tables(takes["where"]) if takes["rows"] else []
        common = [*files, *(options.of_clusters() if takes["cluster"] else [])]
        if takes["formats"]:
            choice = click.Choice(list(takes["formats"]))
            said = "Output format.  [default: table on a terminal, else json]"
            common.append(click.Option(["--format"], type=choice, help=said))
        self._common, self._table = ([str(one.name) for one in some] for some in (common, table))
        self.params += [*files, *table, *common[len(files) :], options.debug_option()]

    def invoke(self, ctx: click.Context) -> Any:
        given = {name: ctx.params.pop(name) for name in self._common}
        given["table"] = {name: ctx.params.pop(name) for name in self._table}
        if "format" in given:
            given["format"] = given["format"] or default_format()
        with readable_errors(bool(ctx.meta.get("debug"))), warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = _warn
            ctx.params["call"] = Call(**given)
            result = super().invoke(ctx)
            flush()
            return result


class Group(click.Group):
    """The whole command, or one of several commands."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(options.debug_option())

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        cmd.short_help = cmd.short_help or (cmd.help or "").split("\n\n")[0].replace("\n", " ")  # whole
        super().add_command(cmd, name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in super().list_commands(ctx) if self.commands[name].name == name]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        interrupts.end_at_signals()
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is None:  # closed
                stream = open(os.devnull, "w")  # noqa: SIM115
                setattr(sys, name, stream)
            stream.reconfigure(errors="backslashreplace")
        return self.main(*args, **kwargs)


def flush() -> None:
    """Write what is still in the buffer of stdout, while a reader that is gone can be told from an error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise ReaderGone from None


@contextmanager
def readable_errors(debug: bool) -> Iterator[None]:
    """Errors in one line, or with `debug` as they are; and no error where nobody reads on."""
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except ReaderGone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is still in the buffer
        raise click.exceptions.Exit(0) from None
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None
    except Exception as exc:
        if debug:
            click.echo(printable(traceback.format_exc()), err=True, nl=False)
        raise click.ClickException(one_line(_said(exc))) from None


def _said(exc: Exception) -> str:
    from lazynwb_dask.errors import NWBError

    if isinstance(exc, (NWBError, OSError, ValueError, TypeError)) and str(exc):
        return spelt(str(exc))
    return f"{type(exc).__name__}: {exc} (--debug shows where)"


def one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def say(text: str) -> None:
    """A message for people, on stderr."""
    click.echo(printable(text), err=True)


def _warn(message: Any, *args: Any, **kwargs: Any) -> None:
    say(f"Warning: {one_line(spelt(str(message)))}")


def print_rows(rows: Any, call: Call, name: str = "rows", **about: Any) -> None:
    """Print a frame, or several one after the other. See `output.write`."""
    command = click.get_current_context().command_path.partition(" ")[2]
    write(rows, call.format, name, {"command": command, **about})


@contextmanager
def cluster(call: Call) -> Iterator[None]:
    """Within, Dask computes on the cluster that was asked for."""
    if call.scheduler is not None and call.workers is not None:
        raise click.UsageError("--scheduler is a cluster that runs, --workers starts one: give one of them")
    with ExitStack() as stack:
        if call.scheduler is not None:
            stack.enter_context(_client(call.scheduler))
        elif call.workers is not None:
            scratch = stack.enter_context(scratch_folder())
            stack.enter_context(local_cluster(call.workers, scratch))
        yield


def _client(address: str) -> Client:
    """A client of a cluster that runs. Raises OSError if that isn't there, or is something else, which may be
    silent, or send lengths that are none, and click.BadParameter if the address can't be right."""
    from distributed import Client
    from distributed.comm import get_address_host_port

    try:  # a client that is given no valid address waits for a long time when it is deleted
        if not address.startswith("inproc://"):
            get_address_host_port(address)
    except ValueError as exc:
        raise click.BadParameter(f"{exc}; such as tcp://host:8786", param_hint="'--scheduler'") from None
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    found: queue.Queue[Exception | None] = queue.Queue()

    def connect() -> None:
        try:  # one that can't connect would stay the default client
            Client(address, timeout=CONNECTING, set_as_default=False).close()
            found.put(None)
        except Exception as exc:
            found.put(exc)

    threading.Thread(target=connect, daemon=True).start()
    try:
        failed = found.get(timeout=CONNECTING + 2)
    except queue.Empty:
        failed = TimeoutError("it says nothing")
    if failed is not None:
        raise OSError(f"--scheduler {address}: no Dask scheduler is there: {failed}") from failed
    return Client(address, timeout=CONNECTING)


@contextmanager
def scratch_folder() -> Iterator[str]:
    """A temporary folder, which is removed after an interrupt too."""
    import shutil

    with tempfile.TemporaryDirectory(prefix="lazynwb-dask-", ignore_cleanup_errors=True) as folder:
        remove = partial(shutil.rmtree, folder, ignore_errors=True)
        with interrupts.undone(remove):
            yield folder


@contextmanager
def local_cluster(workers: int, scratch: str) -> Iterator[Client]:
    """Local worker processes, which a Ctrl-C does not reach."""
    import dask
    from distributed import Client, LocalCluster

    # multiprocessing's helper would warn of what is left to it after a Ctrl-C
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
    with dask.config.set({"temporary-directory": scratch}):
        with interrupts.unheard():
            cluster = LocalCluster(
                n_workers=0,
                threads_per_worker=1,
                dashboard_address=":0",
                scheduler_kwargs={"dashboard": False},
                silence_logs=logging.CRITICAL,
            )
        with cluster, Client(cluster) as client:
            cluster.scale(workers)
            client.wait_for_workers(workers, timeout=STARTING)
            yield client


def tell_left_out(frame: dd.DataFrame | SQLQuery) -> None:
    """Say which files could not be read, and were left out."""
    from lazynwb_dask.api.tables import read_report

    for path, error in read_report(frame)[["path", "error"]].itertuples(index=False):
        say(f"Warning: {one_line(f'{path} was left out: {error}')}")
