"""Figures of the database, the store and the machine in the shape that prometheus_client prints."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from app.jobs import counts
from app.monitoring.repository import Figures
from app.tables import Count


@dataclass(frozen=True, eq=False)
class ServiceCollector(Collector):
    """What is true of the service as a whole.

    Attributes:
        figures: None while the database is away.
        free_bytes: room in the store; None where it has no limit, or is away.
    """

    figures: Figures | None
    free_bytes: int | None

    def collect(self) -> Iterator[Metric]:
        """Every family, also those without a series yet."""
        answered = float(self.figures is not None)
        yield GaugeMetricFamily("modelpress_database_up", "Whether the database answered this scrape.", value=answered)
        free = GaugeMetricFamily("modelpress_store_free_bytes", "Room in the store; absent where it has no limit.")
        if self.free_bytes is not None:
            free.add_metric([], self.free_bytes)
        yield free
        yield from _gauges(self.figures)
        rows = self.figures.counts if self.figures is not None else ()
        series = {name: list(found) for name, found in itertools.groupby(rows, lambda row: row.name)}
        for definition in counts.ALL:
            yield _family(definition, series.get(definition.name, []))


@dataclass(frozen=True, eq=False)
class ProcessesCollector(Collector):
    """Memory, processor time and open files of each of these processes, told apart by the label ``pid``."""

    pids: tuple[int, ...]

    def collect(self) -> Iterator[Metric]:
        """The ``process_*`` families of prometheus_client, for several processes."""
        families: dict[str, Metric] = {}
        for pid in self.pids:
            for family in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                whole = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    whole.add_sample(sample.name, {**sample.labels, "pid": str(pid)}, sample.value)
        yield from families.values()


def _gauges(figures: Figures | None) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("modelpress_jobs", "Jobs that are not over.", labels=("queue", "state"))
    waiting = "Age of what has waited longest though a worker could take it."
    oldest = GaugeMetricFamily("modelpress_queue_oldest_seconds", waiting, labels=("queue",))
    workers = GaugeMetricFamily("modelpress_workers", "Workers that were seen lately.", labels=("queue",))
    if figures is not None:
        for labels, number in figures.jobs.items():
            jobs.add_metric(labels, number)
        for queue, seconds in figures.oldest_s.items():
            oldest.add_metric([queue], seconds)
        for queue, number in figures.workers.items():
            workers.add_metric([queue], number)
    yield from (jobs, oldest, workers)


def _family(definition: counts.Counter | counts.Histogram, rows: Iterable[Count]) -> Metric:
    if isinstance(definition, counts.Counter):
        family = CounterMetricFamily(definition.name, definition.help, labels=definition.labels)
        for row in rows:
            family.add_metric(row.labels, row.value)
        return family
    histogram = HistogramMetricFamily(definition.name, definition.help, labels=definition.labels)
    for labels, found in itertools.groupby(rows, lambda row: row.labels):
        values = {row.bucket: row.value for row in found}
        names = [*map(str, definition.bounds), "+Inf"]
        below = list(itertools.accumulate(values.get(name, 0.0) for name in names))
        histogram.add_metric(labels, list(zip(names, below, strict=True)), values.get("sum", 0.0))
    return histogram
