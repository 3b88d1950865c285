"""Real files by many writers: every table of every NWB 2 file, cell for cell as stored."""

from __future__ import annotations

import warnings

import oracle
import pytest

import lazynwb_dask
from lazynwb_dask.errors import NWBReadError


def test_every_table_of_every_file_reads_cell_for_cell(capsys: pytest.CaptureFixture[str]) -> None:
    files = oracle.corpus_files()
    tables = columns = cells = 0
    wrong = []
    for path in files:
        names = lazynwb_dask.list_tables(path)
        assert sorted(names) == sorted(oracle.tables(path)), path
        for name in names:
            wanted = oracle.frame(path, name)
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # no column is left out
                got = lazynwb_dask.read_nwb(path, name).compute(scheduler="sync")
            try:
                oracle.assert_same(got, wanted)
            except AssertionError as exc:
                wrong.append(f"{path.name} {name}: {exc}")
            tables, columns, cells = tables + 1, columns + got.shape[1], cells + got.size
    with capsys.disabled():
        print(f"\ncorpus: {len(files)} files, {tables} tables, {columns} columns, {cells} cells")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ["/units", "/intervals/trials", "electrodes"])
def test_all_files_that_have_a_table_make_one_frame(name: str) -> None:
    files = oracle.corpus_files()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # files without the table, columns in conflict
        frame = lazynwb_dask.read_nwb(files, name)
        got = frame.compute(scheduler="sync")
    assert len(frame) == len(got)
    for path, rows in got.groupby("_nwb_path"):
        wanted = oracle.frame(path, rows._table_path.iloc[0])
        assert rows._table_index.tolist() == list(range(len(wanted)))
        assert rows.id.tolist() == wanted.id.tolist()


def test_trials_of_five_sessions_are_one_frame() -> None:
    folder = oracle.corpus_root() / "AllenNeuralDynamics+aind-dynamic-foraging-basic-analysis"
    frame = lazynwb_dask.read_nwb(folder, "trials")
    assert len(frame) == 432 + 447 + 555 + 1 + 225
    got = frame.compute(scheduler="sync")
    rewarded = frame[frame.rewarded_historyL == 1].compute(scheduler="sync")
    assert len(rewarded) == (got.rewarded_historyL == 1).sum() > 0


def test_nwb_1_is_an_error_that_says_so() -> None:
    (path,) = oracle.corpus_root().rglob("mutant_photoreceptor_data.nwb")
    with pytest.raises(NWBReadError, match=r"mutant_photoreceptor_data.*NWB 1\.0\.6.*only NWB 2"):
        lazynwb_dask.read_nwb(path, "/units")
