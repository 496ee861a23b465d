"""Every event that the program knows: its id, its level, what it means, what an operator does.

An id is for ever: searches and alerts name it. README.md has the same as a table. How an event is
written is in `log.py`.
"""

import logging
from enum import Enum


class Event(Enum):
    """Every event: id, level, what it means, what to do."""

    DAEMON_STARTED = "daemon_started", logging.INFO, "All forwards have been started.", "Nothing."
    DAEMON_STOPPING = (
        "daemon_stopping",
        logging.INFO,
        "A stop was asked for; jobs under way are being confirmed.",
        "Nothing; a second signal stops at once.",
    )
    DAEMON_STOPPED = "daemon_stopped", logging.INFO, "The daemon ends.", "Nothing."
    DAEMON_STATUS = (
        "daemon_status",
        logging.INFO,
        "The answer to SIGUSR1, after one forward_status for each forward.",
        "Nothing.",
    )
    DAEMON_CRASHED = (
        "daemon_crashed",
        logging.CRITICAL,
        "The main loop met an error that nobody expected; the daemon ends with exit code 1.",
        "Report the traceback. Nothing is lost: jobs that were held are at the source again.",
    )
    CONFIG_PROBLEM = (
        "config_problem",
        logging.ERROR,
        "The configuration cannot be used. One record for each problem.",
        "Mend the place that is named; `gevproxy check` shows all problems for a person.",
    )
    RELOADED = (
        "reloaded",
        logging.INFO,
        "A new configuration is in force; the fields name the forwards that changed.",
        "Nothing.",
    )
    RELOAD_REFUSED = (
        "reload_refused",
        logging.ERROR,
        "The new configuration cannot be used; everything runs on as before.",
        "Mend what the config_problem records before this one name, and reload again.",
    )
    FORWARD_STATE = (
        "forward_state",
        logging.WARNING,
        "A forward runs, or the reasons why it does not have changed.",
        "Read the reasons.",
    )
    FORWARD_STATUS = (
        "forward_status",
        logging.INFO,
        "Facts and counters of one forward, on SIGUSR1 and when it has stopped.",
        "Nothing.",
    )
    FORWARD_BLOCKED = (
        "forward_blocked",
        logging.ERROR,
        "A job could not pass, and the forward leaves its source so that no other is harmed.",
        "Read the reason; mend the key, the setting or the target. It tries some jobs every 5 s.",
    )
    FORWARD_UNBLOCKED = (
        "forward_unblocked",
        logging.INFO,
        "A job has passed again, or dead letters can be written, and the forward goes on.",
        "Nothing.",
    )
    FORWARD_CRASHED = (
        "forward_crashed",
        logging.ERROR,
        "A forward met an error that nobody expected, and is started anew.",
        "Report the traceback. What it held is at the source again.",
    )
    GREENLET_CRASHED = (
        "greenlet_crashed",
        logging.ERROR,
        "A part of the daemon that belongs to no forward met an error that nobody expected.",
        "Report the traceback.",
    )
    ACCOUNTING = (
        "accounting",
        logging.ERROR,
        "A forward's counters do not add up: received is not what became of it.",
        "Report it with the forward_status record of this forward.",
    )
    LOOP_STALLED = (
        "loop_stalled",
        logging.ERROR,
        "The loop stands still for 5 s, and every forward with it; at level info: it goes on.",
        "Mend the callback or pattern that is named. systemd ends the process after WatchdogSec.",
    )
    WATCHER_ABSENT = (
        "watcher_absent",
        logging.WARNING,
        "The process that notices a loop standing still has ended, or cannot be started.",
        "If it repeats: read the reason. It is tried again every 10 s; forwards do not need it.",
    )
    SOURCE_UP = "source_up", logging.INFO, "The source has answered its first ping.", "Nothing."
    SOURCE_AWAY = (
        "source_away",
        logging.WARNING,
        "No connection to the source could be made, or it did not answer.",
        "See whether gearmand runs there and the firewall lets us through.",
    )
    SOURCE_LOST = (
        "source_lost",
        logging.WARNING,
        "The connection to the source is over; what was held is at its queue again.",
        "If it repeats: look at gearmand there, and at the network between.",
    )
    SOURCE_LEFT = (
        "source_left",
        logging.INFO,
        "The forward may not take jobs and has closed its connection to the source.",
        "See the forward_state record for the reason.",
    )
    SOURCE_ERROR = (
        "source_error",
        logging.WARNING,
        "The source answered with an ERROR packet.",
        "JOB_NOT_FOUND after a restart of gearmand is harmless; look at others.",
    )
    TARGET_UP = "target_up", logging.INFO, "The target has answered its first ping.", "Nothing."
    TARGET_AWAY = (
        "target_away",
        logging.WARNING,
        "No connection to the target could be made, or it did not answer.",
        "See whether gearmand runs there and the firewall lets us through.",
    )
    TARGET_LOST = (
        "target_lost",
        logging.WARNING,
        "The connection to the target is over; what it had not confirmed is sent again.",
        "If it repeats: look at gearmand there, and at the network between.",
    )
    TARGET_FULL = (
        "target_full",
        logging.WARNING,
        "The target's queue has reached its limit (maxqueue); jobs wait at the source.",
        "See whether workers take jobs from the target's queue.",
    )
    JOB_PASSED = (
        "job_passed",
        logging.DEBUG,
        "A job was confirmed by the target, or on a sync forward answered. Only with `debug`.",
        "Nothing.",
    )
    DEAD_LETTER = (
        "dead_letter",
        logging.WARNING,
        "A stage or the target refused a job; it is in the dead letters and ended at the source.",
        "Read the reason and mend it, then `gevproxy dead-letters replay`.",
    )
    LATE_CHECK = (
        "late_check",
        logging.WARNING,
        "A check was older than `max_age` and was not sent; the message says what became of it.",
        "After an outage: nothing. Else see what keeps checks from being sent, and the clocks.",
    )
    AGE_UNKNOWN = (
        "age_unknown",
        logging.WARNING,
        "A forward with `max_age` cannot read a job, and passes it on whatever its age.",
        "Give the forward `decrypt`, or take `max_age` away.",
    )
    WATCH_FAILED = (
        "watch_failed",
        logging.INFO,
        "A server does not tell the depths of its queues, which are left out of the status.",
        "Nothing, if it is away or cannot (no text protocol); forwards do not need it.",
    )
    CALLBACK_SLOW = (
        "callback_slow",
        logging.WARNING,
        "A data_callback took over 100 ms, in which no forward could do anything.",
        "Make it faster: a callback may not wait for anything.",
    )
    JOB_REFUSED = (
        "job_refused",
        logging.WARNING,
        "A job of a sync forward was refused by the target; its client got WORK_FAIL.",
        "Read the reason.",
    )
    JOB_TIMEOUT = (
        "job_timeout",
        logging.WARNING,
        "A sync job had no answer within `timeout`; its client got WORK_FAIL.",
        "See whether workers take jobs from the target's queue.",
    )
    WAKEUP_LOST = (
        "wakeup_lost",
        logging.INFO,
        "A job waited at the source although we slept and were not woken; the slow grab found it.",
        "If it repeats: raise --worker-wakeup of the source's gearmand.",
    )

    STATUS_QUEUE_UP = (
        "status_queue_up",
        logging.INFO,
        "The gearmand of the status queue has answered its first ping; checks are answered.",
        "Nothing.",
    )
    STATUS_QUEUE_AWAY = (
        "status_queue_away",
        logging.WARNING,
        "No connection to the gearmand of the status queue could be made, or it did not answer.",
        "See whether gearmand runs there. Forwards do not need it; `gevproxy status` answers.",
    )
    STATUS_QUEUE_LOST = (
        "status_queue_lost",
        logging.WARNING,
        "The connection to the gearmand of the status queue is over.",
        "If it repeats: look at gearmand there, and at the network between.",
    )
    STATUS_QUEUE_ERROR = (
        "status_queue_error",
        logging.WARNING,
        "The gearmand of the status queue answered with an ERROR packet.",
        "JOB_NOT_FOUND is a check that was over before its answer; look at others.",
    )
    STATUS_QUEUE_FAILED = (
        "status_queue_failed",
        logging.ERROR,
        "A check met an error that nobody expected; it was answered with UNKNOWN.",
        "Report the traceback. No forward is touched.",
    )
    STATUS_QUEUE_CRASHED = (
        "status_queue_crashed",
        logging.ERROR,
        "Answering checks met an error that nobody expected, and is started anew.",
        "Report the traceback. No forward is touched.",
    )
    CONTROL_ABSENT = (
        "control_absent",
        logging.WARNING,
        "There is no control socket, so `gevproxy status`, `reload`, `pause` and `resume` fail.",
        "Read the reason. Forwards, signals and the status queue do not need it.",
    )
    CONTROL_COMMAND = (
        "control_command",
        logging.INFO,
        "A command came through the control socket, from the process and user in the fields.",
        "Nothing.",
    )
    CONTROL_FAILED = (
        "control_failed",
        logging.ERROR,
        "A command through the control socket met an error that nobody expected.",
        "Report the traceback. No forward is touched.",
    )

    METRICS_UP = (
        "metrics_up",
        logging.INFO,
        "Metrics are served at the address in the message.",
        "Nothing.",
    )
    METRICS_ABSENT = (
        "metrics_absent",
        logging.WARNING,
        "Connections for metrics cannot be accepted; it is tried again every second.",
        "Read the reason. Forwards do not need it.",
    )
    METRICS_REFUSED = (
        "metrics_refused",
        logging.WARNING,
        "A request for metrics was none of HTTP, too large or too slow, or took no answer.",
        "If it repeats: see who asks at that address; only Prometheus and probes should.",
    )
    METRICS_FAILED = (
        "metrics_failed",
        logging.ERROR,
        "A request for metrics met an error that nobody expected; it was answered with 500.",
        "Report the traceback. No forward is touched.",
    )

    def __init__(self, id_: str, level: int, meaning: str, remedy: str) -> None:
        self.id = id_
        self.level = level
        self.meaning = meaning
        self.remedy = remedy
