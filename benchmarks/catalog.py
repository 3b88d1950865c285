"""How planning grows with the number of files: catalogs of made-up sessions, up to 100,000 of them.

The sessions are made up at the level of the index: a few real files are indexed, and their rows repeated under
other names, with other sizes, statistics and places in the file. So all that planning reads is there, and as
different from file to file as in earnest; the values and the NWB files themselves are not.

``python -m benchmarks.catalog [--files 1000 10000 100000] [--folder FOLDER]``
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

SEEDS = 50  # real files that the others are made of
LIMITS = {10_000: (1.0, 500), 100_000: (10.0, None)}  # seconds and MB, where they are promised


def make_catalog(folder: Path, files: int) -> None:
    """Write the index of so many sessions."""
    from lazynwb_dask import config
    from lazynwb_dask.catalog.assemble import assembled
    from lazynwb_dask.catalog.batch import Batch, batch_of
    from lazynwb_dask.catalog.folder import Folder
    from lazynwb_dask.catalog.manifest import Keeps
    from lazynwb_dask.catalog.survey import survey
    from lazynwb_dask.datasets import make_sessions
    from lazynwb_dask.model.source import Source
    from lazynwb_dask.storage.options import Options

    keeps, access = Keeps(None, 4 << 20), config.file_access(Options())
    with tempfile.TemporaryDirectory() as where:
        paths = make_sessions(where, n=SEEDS, units=20, mean_spikes=50, trials=20, varied=True)
        found = [survey(Source(path), access, keeps) for path in paths]
    seeds, values = batch_of(found)
    rng = np.random.default_rng(0)
    batches = []
    for at in range(0, files, SEEDS):
        tables = {kind: _varied(table, kind, at, rng) for kind, table in seeds.tables.items()}
        batches.append(Batch(tables, seeds.values))
    catalog = Folder.of(folder, access)
    rows = np.stack(np.divmod(np.arange(files), SEEDS), axis=1)
    manifest, made = assembled(batches, rows, catalog, keeps, ("s3://made-up/",))
    for name, data in (values | made).items():
        catalog.write(name, data)
    manifest.write(catalog)


def _varied(table: pa.Table, kind: str, at: int, rng: np.random.Generator) -> pa.Table:
    """The rows of the seeds as those of other sessions."""
    if kind == "files":
        urls = [f"s3://made-up/dandisets/000409/sub-{at:06d}/{i:06d}.nwb" for i in range(SEEDS)]
        sizes = rng.integers(10**7, 10**10, SEEDS)
        etags = [f'"{x:032x}"' for x in rng.integers(0, 2**62, SEEDS).tolist()]
        for name, column in (("url", urls), ("size", sizes), ("etag", etags)):
            index = table.schema.get_field_index(name)
            table = table.set_column(index, table.schema.field(name), pa.array(column))
    if kind == "columns":
        noise = rng.uniform(0.5, 1.5, table.num_rows)
        for name in ("min_float", "max_float"):
            index = table.schema.get_field_index(name)
            held = table[name].combine_chunks()
            column = pa.array(held.fill_null(0).to_numpy() * noise, mask=table[name].is_null().to_numpy())
            table = table.set_column(index, table.schema.field(name), column)
    return table


QUERY = r"""
import json, re, sys, time
import lazynwb_dask, dask.dataframe, pyarrow.parquet, lazynwb_dask.api
from lazynwb_dask import expr


def most():  # memory that this process has had at its peak; what getrusage says includes its parent's
    with open("/proc/self/status") as status:
        return int(re.search(r"VmHWM:\s+(\d+)", status.read())[1]) / 1024


base = most()
begun = time.perf_counter()
catalog = lazynwb_dask.open_catalog(sys.argv[1])
opened = time.perf_counter()
units = lazynwb_dask.read_nwb(catalog, "/units")
read = time.perf_counter()
good = units[(units.presence_ratio >= 0.9) & (units.snr > 14) & units.default_qc]
query = good[["unit_id", "spike_times"]]
(node,) = expr.reads(query)
planned = time.perf_counter()
graph = query.optimize().dask
done = time.perf_counter()
peak = most()
left = node.scan.nparts if node.layout.parts is None else len(node.layout.parts)
print(json.dumps({
    "files": len(catalog), "open": opened - begun, "read_nwb": read - opened, "plan": planned - read,
    "graph": done - planned, "total": done - begun, "MB": peak, "MB before": base,
    "partitions left": left, "tasks": len(graph),
}))
"""


def measure(folder: Path) -> dict[str, Any]:
    """Open a catalog and plan a filtered query, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", QUERY, str(folder)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--files", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--folder", type=Path, help="keep the catalogs here, and use those there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.folder or Path(temporary)
        for files in arguments.files:
            folder = root / f"catalog-{files}"
            begun = time.perf_counter()
            if not (folder / "_manifest.json").exists():
                make_catalog(folder, files)
                print(f"{files} sessions made up in {time.perf_counter() - begun:.0f} s", flush=True)
            figures = measure(folder)
            limit, most = LIMITS.get(files, (None, None))
            shown = {k: round(v, 3) if isinstance(v, float) else v for k, v in figures.items()}
            print(json.dumps(shown | {"limit s": limit, "limit MB": most}), flush=True)


if __name__ == "__main__":
    main()
