"""The figures of a status as Prometheus metrics.

Pure: a Reading in, text out. Everything has been counted elsewhere, for the status; it is put into
words when it is asked for, and nothing here is touched by a job. The metrics are described in the
README, section "Metrics". Needs prometheus_client: import this only where metrics are wanted.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, cast

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from gevproxy.depths import HELD_BACK
from gevproxy.status import HISTOGRAM_BOUNDS, ForwardStatus, Histogram, Status

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

AT_A_TIME: Final = 250
"""Samples between two pauses: about a millisecond of work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All that is told at one moment, copied, so that the relay may go on meanwhile.

    `times` has each forward's by its key; `process` are values of the process by metric; `reload`
    is whether the last one went well and when that was, since the epoch; `requests` counts what
    was answered to whom asked for metrics, by the code of HTTP.
    """

    status: Status
    times: Mapping[str, Histogram]
    process: Mapping[str, float]
    reload: tuple[bool, float]
    requests: Mapping[int, int]


JOBS: Final[Mapping[str, tuple[str, str]]] = {
    "received": ("jobs_received", "Jobs that the source has assigned to us."),
    "confirmed": ("jobs_confirmed", "Jobs completed at the source after the target took them."),
    "dead_lettered": ("jobs_dead_lettered", "Jobs written to a dead letter, then completed."),
    "dropped": ("jobs_dropped", "Jobs completed without being sent: a callback said so, or late."),
    "answered": ("jobs_answered", "Jobs ended with a result or failure that the submitter sees."),
    "given_back": ("jobs_given_back", "Jobs that are at the source's queue again."),
    "retries": ("retries", "Submissions sent again, after a lost target or a full queue."),
    "coalesced": ("jobs_coalesced", "Confirmed jobs whose unique the target already had."),
    "refused": ("jobs_refused", "Jobs that a stage or the target refused."),
    "timeouts": ("jobs_timed_out", "Synchronous jobs that had no answer in time."),
    "late": ("jobs_late", "Checks over max_age, which were not sent."),
    "bytes_in": ("received_bytes", "Workload received from the source."),
    "bytes_out": ("sent_bytes", "Workload that the target has confirmed or answered."),
    "source_errors": ("source_errors", "ERROR packets from the source."),
    "wakeups_lost": ("wakeups_lost", "Jobs that waited at the source while we slept."),
    "blocks": ("blocks", "Times that the forward was blocked."),
    "crashes": ("crashes", "Times that the forward was started anew after an error of ours."),
}
"""Of a forward's counters the metric (without gevproxy_ and _total) and its help."""

SIDES: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "connections": (
        "Connections that have come up.",
        {"source_connections": "source", "target_connections": "target"},
    ),
    "connections_lost": (
        "Connections that had been up and ended against our will.",
        {"source_losses": "source", "target_losses": "target"},
    ),
}
"""Of the counters that there are for either side: the metric, its help, and the side of each."""

STATES: Final[Mapping[str, str]] = {
    "source away": "source_away",
    "target away": "target_away",
    "target full": "target_full",
    HELD_BACK: "held_back",
    "blocked": "blocked",
    "paused": "paused",
    "stopping": "stopping",
    "crashed": "crashed",
}
"""How a reason begins and which state that is; another is "other", and none at all "running"."""

_GAUGES: Final[Mapping[str, tuple[str, str]]] = {
    "held": ("jobs_held", "Jobs that are neither confirmed nor given back."),
    "in_flight": ("jobs_in_flight", "Jobs sent to the target and not yet confirmed."),
    "unaccounted": ("jobs_unaccounted", "Received jobs whose fate is not known; never but 0."),
    "not_running": ("not_running_seconds", "Seconds for which the forward has not run."),
    "since_confirm": (
        "since_last_confirm_seconds",
        "Seconds since the last confirmation or answer; not there before the first.",
    ),
    "source_waiting": ("source_jobs_waiting", "Jobs that wait in the source's queue."),
    "target_waiting": ("target_jobs_waiting", "Jobs that wait in the target's queue."),
    "target_workers": ("target_workers", "Workers that take jobs from the target's queue."),
}
"""Of a forward's status the gauge and its help."""

_PROCESS: Final[Mapping[str, tuple[str, str]]] = {
    "process_cpu_seconds": ("counter", "Processor time that the relay has used."),
    "process_resident_memory_bytes": ("gauge", "Memory that the relay has."),
    "process_open_fds": ("gauge", "Descriptors that are open."),
    "process_max_fds": ("gauge", "Descriptors that may be open."),
    "process_start_time_seconds": ("gauge", "When the relay was started, since the epoch."),
}

_LE: Final = (*map(floatToGoString, HISTOGRAM_BOUNDS), "+Inf")

Labels = dict[str, str]


def render(reading: Reading, pause: Callable[[], None]) -> bytes:
    """Return the text; `pause` is called now and then, to let others have a turn."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Readings(reading, pause))
    return generate_latest(registry)


class _Readings(Collector):
    """Turns one reading into metrics, bit by bit."""

    def __init__(self, reading: Reading, pause: Callable[[], None]) -> None:
        self._reading = reading
        self._forwards = reading.status.forwards
        self._pause = pause

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        yield from self._relay()
        yield self._metric("forward", "info", "What the forward is.", self._info())
        for field, (name, text) in JOBS.items():
            yield self._metric(name, "counter", text, self._counter(name, field))
        for name, (text, fields) in SIDES.items():
            yield self._metric(name, "counter", text, self._sides(name, fields))
        for field, (name, text) in _GAUGES.items():
            yield self._metric(name, "gauge", text, self._gauge(name, field))
        text = "1 for each state that the forward is in, 0 for the others."
        yield self._metric("forward_state", "gauge", text, self._states())
        text = "Seconds from a job's assignment to its confirmation or answer."
        yield self._metric("job_duration_seconds", "histogram", text, self._times())
        text = "Seconds until a certificate expires: ours, our CA's, the server's as last seen."
        yield self._metric("certificate_remaining_seconds", "gauge", text, self._certificates())

    def _metric(
        self, name: str, kind: str, text: str, samples: Iterable[Sample], prefix: str = "gevproxy_"
    ) -> Metric:
        metric = Metric(prefix + name, text, kind)
        # They are made while they are written, so that a pause can come in between.
        metric.samples = cast("list[Sample]", self._paced(samples))
        return metric

    def _paced(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        for number, sample in enumerate(samples, 1):
            if not number % AT_A_TIME:
                self._pause()
            yield sample
        self._pause()

    def _relay(self) -> Iterator[Metric]:
        """Yield what is told of the relay as a whole."""
        reading = self._reading
        build = Sample("gevproxy_build_info", {"version": reading.status.version}, 1)
        yield self._metric("build", "info", "The program that runs.", [build])
        good, when = reading.reload
        name = "config_last_reload_successful"
        text = "Whether the last start or reload took its configuration."
        yield self._metric(name, "gauge", text, [Sample(f"gevproxy_{name}", {}, good)])
        name = "config_last_reload_success_timestamp_seconds"
        text = "When the configuration in force was taken, since the epoch."
        yield self._metric(name, "gauge", text, [Sample(f"gevproxy_{name}", {}, when)])
        text = "Requests to this server, by the code of their answer."
        yield self._metric("http_requests", "counter", text, self._requests())
        for name, (kind, text) in _PROCESS.items():
            if name in reading.process:
                total = f"{name}_total" if kind == "counter" else name
                samples = [Sample(total, {}, reading.process[name])]
                yield self._metric(name, kind, text, samples, prefix="")

    def _requests(self) -> Iterator[Sample]:
        for code, count in sorted(self._reading.requests.items()):
            yield Sample("gevproxy_http_requests_total", {"code": str(code)}, count)

    def _info(self) -> Iterator[Sample]:
        for forward in self._forwards:
            mode = "async" if forward.asynchronous else "sync"
            labels = {"target": forward.target, "mode": mode}
            yield Sample("gevproxy_forward_info", _of(forward) | labels, 1)

    def _counter(self, name: str, field: str) -> Iterator[Sample]:
        for forward in self._forwards:
            yield Sample(f"gevproxy_{name}_total", _of(forward), forward.counters[field])

    def _sides(self, name: str, fields: Mapping[str, str]) -> Iterator[Sample]:
        for forward in self._forwards:
            for field, side in fields.items():
                labels = _of(forward) | {"side": side}
                yield Sample(f"gevproxy_{name}_total", labels, forward.counters[field])

    def _gauge(self, name: str, field: str) -> Iterator[Sample]:
        for forward in self._forwards:
            value = getattr(forward, field)
            if value is not None:
                yield Sample(f"gevproxy_{name}", _of(forward), value)

    def _states(self) -> Iterator[Sample]:
        for forward in self._forwards:
            present = _present(forward.reasons)
            for state in ("running", *STATES.values(), "other"):
                labels = _of(forward) | {"state": state}
                yield Sample("gevproxy_forward_state", labels, int(state in present))

    def _times(self) -> Iterator[Sample]:
        name = "gevproxy_job_duration_seconds"
        for forward in self._forwards:
            times = self._reading.times[forward.key]
            total = 0
            for le, total in zip(_LE, accumulate(times.counts), strict=True):
                yield Sample(f"{name}_bucket", _of(forward) | {"le": le}, total)
            yield Sample(f"{name}_sum", _of(forward), times.seconds)
            yield Sample(f"{name}_count", _of(forward), total)

    def _certificates(self) -> Iterator[Sample]:
        for server in self._reading.status.servers:
            days = {
                "own": server.certificate_days,
                "ca": server.ca_days,
                "server": server.peer_days,
            }
            for certificate, left in days.items():
                if left is not None:
                    labels = {"server": server.address, "certificate": certificate}
                    yield Sample("gevproxy_certificate_remaining_seconds", labels, left * 86400)


def _of(forward: ForwardStatus) -> Labels:
    return {"forward": forward.key}


def _present(reasons: Iterable[str]) -> set[str]:
    """Return the states that a forward is in for these reasons; without one it runs."""
    found = {
        next((state for begin, state in STATES.items() if reason.startswith(begin)), "other")
        for reason in reasons
    }
    return found or {"running"}
