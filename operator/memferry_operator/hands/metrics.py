"""Metrics: what is known of the migrations when Prometheus asks, and counters of the operator itself."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Iterable
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from memferry.manifest.status import MigrationStatus, Phase
from memferry_operator.brain.draft import TERMINAL

__all__ = ["Metrics"]

Migrations = dict[tuple[str, str], MigrationStatus]


class Metrics:
    """All of them, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.known: Migrations = {}
        self.registry.register(_Migrations(self.known))
        self.queue_depth = Gauge(
            "memferry_queue_depth",
            "Resources that wait to be looked at",
            registry=self.registry,
        )
        self.leader = Gauge("memferry_leader", "1 while this operator leads", registry=self.registry)
        self.reconciles = Counter(
            "memferry_reconciles",
            "Looks at a resource",
            ["kind", "outcome"],
            registry=self.registry,
        )
        self.reconcile_secs = Histogram(
            "memferry_reconcile_seconds",
            "Duration of a look",
            ["kind"],
            buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 30),
            registry=self.registry,
        )
        self.api_answers = Counter(
            "memferry_api_answers", "Answers of the API server", ["code"], registry=self.registry
        )
        self.actions = Counter("memferry_actions", "Things done", ["action"], registry=self.registry)
        self.write_freeze_secs = Histogram(
            "memferry_write_freeze_seconds",
            "How long writes waited in a switch",
            buckets=(0.5, 1, 2, 5, 10, 20, 30, 60, 300, 3600),
            registry=self.registry,
        )


class _Migrations(Collector):
    """Gauges from the statuses as last seen: nothing is left behind by a migration that is gone."""

    def __init__(self, known: Migrations) -> None:
        self._known = known

    def collect(self) -> Iterable[Metric]:
        phases = GaugeMetricFamily("memferry_migrations", "Migrations by phase", labels=["phase"])
        counts = Counts(status.phase or "Pending" for status in self._known.values())
        for phase in get_args(Phase):
            phases.add_metric([phase], counts.get(phase, 0))
        yield phases
        yield from self._each()

    def _each(self) -> Iterable[Metric]:
        labels = ["namespace", "migration"]
        stalled = GaugeMetricFamily(
            "memferry_migration_stalled", "1 while someone has to act", labels=[*labels, "reason"]
        )
        waits = GaugeMetricFamily(
            "memferry_migration_approval_required", "1 while an approval is awaited", labels=labels
        )
        records = GaugeMetricFamily("memferry_migration_records", "Records of the copy", labels=[*labels, "state"])
        rate = GaugeMetricFamily("memferry_migration_records_per_second", "Rate of the copy", labels=labels)
        lag = GaugeMetricFamily("memferry_migration_sync_changed", "Records the last pass carried", labels=labels)
        predicted = GaugeMetricFamily(
            "memferry_migration_predicted_freeze_seconds",
            "Write freeze a switch would need now",
            labels=labels,
        )
        freeze = GaugeMetricFamily(
            "memferry_migration_write_freeze_seconds", "Write freeze of the switch", labels=labels
        )
        stray = GaugeMetricFamily("memferry_migration_stray_writes", "Writes to the old side", labels=labels)
        for key, status in self._known.items():
            if status.phase in TERMINAL:
                continue
            true = {c.type: c for c in status.conditions if c.status == "True"}
            if "Stalled" in true:
                stalled.add_metric([*key, true["Stalled"].reason], 1)
            waits.add_metric(key, float("ApprovalRequired" in true))
            if status.progress:
                for state in ("read", "written", "quarantined"):
                    records.add_metric([*key, state], getattr(status.progress, state))
                rate.add_metric(key, status.progress.records_per_second or 0)
            if status.sync:
                lag.add_metric(key, status.sync.changed)
                if status.sync.predicted_freeze_secs is not None:
                    predicted.add_metric(key, status.sync.predicted_freeze_secs)
            if status.traffic and status.traffic.write_freeze_millis is not None:
                freeze.add_metric(key, status.traffic.write_freeze_millis / 1000)
            if status.monitoring:
                stray.add_metric(key, status.monitoring.stray_writes)
        yield from (stalled, waits, records, rate, lag, predicted, freeze, stray)
