"""What is measured: questions that people ask of many sessions, the same for every reader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Terms = tuple[tuple[str, str, Any], ...]

# The columns and thresholds of the usual quality control, and what is wanted of the units it leaves.
QUALITY: Terms = (
    ("presence_ratio", ">=", 0.7),
    ("isi_violations_ratio", "<=", 0.5),
    ("amplitude_cutoff", "<=", 0.1),
    ("decoder_label", "!=", "noise"),
)
STRICT: Terms = (
    ("presence_ratio", ">=", 0.9),
    ("isi_violations_ratio", "<=", 0.2),
    ("amplitude_cutoff", "<=", 0.03),
    ("decoder_label", "!=", "noise"),
)
WANTED = ("unit_id", "location", "spike_times", "_nwb_path")
SCALARS = ("presence_ratio", "firing_rate", "unit_id")
TEXTS = ("presence_ratio", "location", "unit_id")
METADATA = 4  # requests one after another for what is known of no file
AREA = "CA1"  # of electrodes
TRIALS = (
    "start_time", "stop_time", "stim_start_time", "stim_name", "trial_index", "block_index",
    "rewarded_side", "is_response", "is_hit", "is_false_alarm", "is_rewarded", "response_time",
)  # fmt: skip
SAMPLES = 20_000
WINDOW, BINS = (-0.5, 1.0), 30  # around the start of each trial
SERIES = "/processing/behavior/running_speed"


@dataclass(frozen=True)
class Workload:
    """One question.

    Attributes
    ----------
    name : str
        Of the peers' method that answers it.
    title : str
    dataset : {"large", "one", "small", "scattered"}
        Which sessions it is asked of.
    cold : bool
        Whether nothing is known of the files when the clock starts; else their schema is known.
    needs : int
        How many requests for a file have to wait for each other once its schema is known: which rows are
        wanted is known only when the columns that say so are there.
    """

    name: str
    title: str
    dataset: str = "large"
    cold: bool = False
    table: str = "/units"
    needs: int = 1

    @property
    def method(self) -> str:
        return self.name.partition("_of_")[0]

    @property
    def waves(self) -> int:
        """How many requests for a file have to wait for each other."""
        return self.needs + METADATA * self.cold

    @property
    def is_table(self) -> bool:
        return self.table != SERIES


WORKLOADS = {
    w.name: w
    for w in (
        Workload("schema", "cold schema", cold=True, needs=0),
        Workload("quality", "QC filter, then spike_times", needs=2),
        Workload("strict", "stricter QC filter, then spike_times", needs=2),
        Workload("scalars", "three scalar columns"),
        Workload("texts", "three scalar columns, one of text"),
        Workload("spikes", "all spike_times"),
        Workload("one", "one unit by id", needs=2),
        Workload("top", "top unit by firing rate, then its spikes", needs=2),
        Workload("regions", "units by region"),
        Workload("psth", "QC filter, then a PSTH of each unit", needs=3),
        Workload("trials", "trials of all files", table="/intervals/trials"),
        Workload("samples", "first 20,000 samples of a TimeSeries", "one", table=SERIES),
        Workload("scalars_of_small", "small files, three scalar columns, cold", "small", cold=True),
        Workload("one_of_small", "small files, one unit, cold", "small", cold=True, needs=2),
        Workload("one_of_small_known", "small files, one unit", "small", needs=2),
        Workload("trials_of_small", "small files, trials", "small", table="/intervals/trials"),
        Workload(
            "areas_of_small", "small files, sessions with electrodes in one area, cold", "small",
            cold=True, table="electrodes",
        ),
        Workload(
            "areas_of_small_known", "small files, sessions with electrodes in one area", "small",
            table="electrodes",
        ),
        Workload(
            "one_of_scattered", "one unit, 1,200 chunks in the column, cold", "scattered", cold=True, needs=2
        ),
    )
}  # fmt: skip
