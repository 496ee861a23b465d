"""The dashboard and the alert rules: they name what there is, and fire when they should."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kit.certificates import Authority
from tests.kit.eventually import eventually
from tests.kit.peers import numbered, submit
from tests.kit.ports import free_port
from tests.kit.relay import Relay, config
from tests.kit.servers import Gearmand
from tests.metrics.kit import Series, promtool, scrape

PACKAGING = Path(__file__).parents[2] / "packaging"
DASHBOARD: dict[str, Any] = json.loads((PACKAGING / "grafana/gevproxy.json").read_text())
RULES = PACKAGING / "prometheus/gevproxy.rules.yml"
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
}

SELECTOR = re.compile(r"\b(up|gevproxy_\w+|process_\w+)\b(?:\{([^}]*)\})?")
LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
OF_PROMETHEUS = {"job", "instance"}
VARIABLES = {
    "$__rate_interval": "5m",
    "$job": ".+",
    "$instance": ".+",
    "$forward": ".+",
}

F = 'job="gevproxy", instance="i", forward="f"'
R = 'job="gevproxy", instance="i"'
STATE = f"gevproxy_forward_state{{{F}, state="
ASYNC = {f'gevproxy_forward_info{{{F}, mode="async"}}': "1x300"}
BUCKET = f"gevproxy_job_duration_seconds_bucket{{{F}, le="
EXPIRES = f'gevproxy_certificate_remaining_seconds{{{R}, server="s", certificate="own"}}'

WELL = {
    f"up{{{R}}}": "1x300",
    f"gevproxy_not_running_seconds{{{F}}}": "0x300",
    f'{STATE}"running"}}': "1x300",
    **{f'{STATE}"{state}"}}': "0x300" for state in ("paused", "blocked", "target_full")},
    **ASYNC,
    f"gevproxy_jobs_held{{{F}}}": "80x300",
    f"gevproxy_since_last_confirm_seconds{{{F}}}": "0.1x300",
    f'{BUCKET}"1.0"}}': "0+600x300",
    f'{BUCKET}"+Inf"}}': "0+600x300",
    f"gevproxy_source_jobs_waiting{{{F}}}": "900x300",
    f"gevproxy_target_jobs_waiting{{{F}}}": "5x300",
    f"gevproxy_target_workers{{{F}}}": "1x300",
    f"gevproxy_jobs_dead_lettered_total{{{F}}}": "7x300",
    f'gevproxy_connections_lost_total{{{F}, side="target"}}': "3x300",
    f"gevproxy_crashes_total{{{F}}}": "1x300",
    f"gevproxy_jobs_unaccounted{{{F}}}": "0x300",
    EXPIRES: "9000000x300",
    f"gevproxy_config_last_reload_successful{{{R}}}": "1x300",
    f"process_open_fds{{{R}}}": "50x300",
    f"process_max_fds{{{R}}}": "1000x300",
}
"""Series of a relay that is well: on which no alert may fire."""

ILL: dict[str, tuple[dict[str, str], int, int]] = {
    "GevproxyDown": ({f"up{{{R}}}": "1x9 0x50"}, 11, 12),
    "GevproxyForwardNotRunning": (
        {f"gevproxy_not_running_seconds{{{F}}}": "0+60x50", f'{STATE}"running"}}': "0x50"},
        *(5, 6),
    ),
    "GevproxyForwardBlocked": ({f'{STATE}"blocked"}}': "0x9 1x50"}, 10, 11),
    "GevproxyForwardPaused": ({f'{STATE}"paused"}}': "0x9 1x300"}, 249, 250),
    "GevproxyTargetFull": ({f'{STATE}"target_full"}}': "0x9 1x50"}, 14, 15),
    "GevproxyJobsWait": ({f"gevproxy_source_jobs_waiting{{{F}}}": "900x9 1001x50"}, 24, 25),
    "GevproxyNoWorkers": ({f"gevproxy_target_workers{{{F}}}": "1x9 0x50"}, 14, 15),
    "GevproxyStuck": ({f"gevproxy_since_last_confirm_seconds{{{F}}}": "0+60x50"}, 6, 7),
    "GevproxySlow": (
        {f'{BUCKET}"30.0"}}': "0+600x300", f'{BUCKET}"1.0"}}': "0x300"},
        *(10, 11),
    ),
    "GevproxyDeadLetters": ({f"gevproxy_jobs_dead_lettered_total{{{F}}}": "7x9 8x50"}, 9, 10),
    "GevproxyReconnecting": (
        {f'gevproxy_connections_lost_total{{{F}, side="target"}}': "3x9 3+4x50"},
        *(10, 14),
    ),
    "GevproxyCrashed": ({f"gevproxy_crashes_total{{{F}}}": "1x9 2x50"}, 9, 10),
    "GevproxyJobsUnaccounted": ({f"gevproxy_jobs_unaccounted{{{F}}}": "0x9 -1x50"}, 10, 11),
    "GevproxyCertificateExpiresSoon": ({EXPIRES: "1209661-60x300"}, 61, 62),
    "GevproxyCertificateExpires": ({EXPIRES: "172860-60x50"}, 1, 2),
    "GevproxyReloadRefused": (
        {f"gevproxy_config_last_reload_successful{{{R}}}": "1x9 0x50"},
        *(14, 15),
    ),
    "GevproxyFewDescriptors": ({f"process_open_fds{{{R}}}": "50x9 801x50"}, 14, 15),
}
"""Of each alert what is otherwise than well; the last minute without it, and the first with it."""


def queries() -> Iterator[str]:
    """Yield everything that the dashboard asks Prometheus for, variables filled in."""
    told = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    told += [
        variable["query"]["query"].removeprefix("label_values(").rpartition(", ")[0]
        for variable in DASHBOARD["templating"]["list"]
        if variable["type"] == "query"
    ]
    for text in told:
        for name, value in VARIABLES.items():
            text = text.replace(name, value)  # noqa: PLW2901 - step by step
        yield text


def live(folder: Path) -> dict[Series, float]:
    """Scrape a relay that has passed a job, and knows a certificate."""
    port = free_port()
    authority = Authority(folder)
    with Gearmand() as a, Gearmand() as b:
        queues = {f"{a.address}/q": f"{b.address}/q", f"{a.address}/tls": "127.0.0.1:1/tls"}
        servers = {"127.0.0.1:1": {"tls": {"ca": str(authority.cert)}}}
        with Relay(
            config(
                queues,
                servers=servers,
                poll=1,
                metrics={"listen": f"127.0.0.1:{port}"},
            )
        ) as relay:
            relay.wait_event("source_up", 30.0)
            submit(a.port, numbered(b"q", 1))
            late = {
                f"gevproxy_{name}"
                for name in (
                    *("since_last_confirm_seconds", "source_jobs_waiting"),
                    *("target_jobs_waiting", "target_workers"),
                )
            }
            eventually(
                lambda: late <= {name for name, _ in scrape(port)},
                60.0,
                what="a confirmation, and a poll of both sides",
            )
            return scrape(port)


def test_everything_that_is_asked_for_exists(
    has_gearmand: None,  # noqa: ARG001 - asked for its check
    tmp_path: Path,
) -> None:
    """In a live scrape, with the labels that are named."""
    labels: dict[str, set[str]] = {"up": set()}
    for name, pairs in live(tmp_path):
        labels.setdefault(name, set()).update(label for label, _ in pairs)
    asked = [*queries(), *(rule["expr"] for rule in ALERTS.values())]
    assert len(asked) > 40
    for expression in asked:
        found = SELECTOR.findall(expression)
        assert found, expression
        for name, selection in found:
            assert name in labels, f"{name} in {expression}"
            named = set(LABEL.findall(selection)) - OF_PROMETHEUS
            assert named <= labels[name], expression


def test_every_query_is_one(tmp_path: Path) -> None:
    rules = [{"record": f"query:{n}", "expr": text} for n, text in enumerate(queries())]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", file)


def test_the_dashboard_can_be_laid_out() -> None:
    """Panels have a number each, a title and a place that is nobody else's."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["title"]
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells)
        taken |= cells


def test_the_rules_are_good() -> None:
    assert f"SUCCESS: {len(ALERTS)} rules found" in promtool("check", "rules", RULES)
    assert set(ILL) == set(ALERTS)
    readme = (PACKAGING.parent / "README.md").read_text()
    assert re.findall(r"`(Gevproxy\w+)`", readme) == list(ALERTS)
    for rule in ALERTS.values():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}


def case(name: str, series: dict[str, str], alerts: dict[int, dict[str, int]]) -> dict[str, Any]:
    """Return one test of promtool: which alerts fire at which minutes."""
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": key, "values": values} for key, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{minute}m",
                "exp_samples": [
                    {"labels": f'{{alertname="{alert}"}}', "value": number}
                    for alert, number in firing.items()
                ],
            }
            for minute, firing in alerts.items()
        ],
    }


@pytest.mark.parametrize("broken", [None, *ILL])
def test_an_alert_fires_when_it_should_and_not_before(broken: str | None, tmp_path: Path) -> None:
    """And no other does; on a relay that is well none does."""
    if broken is None:
        test = case("well", WELL, {minute: {} for minute in (0, 1, 30, 290)})
    else:
        differs, quiet, fires = ILL[broken]
        assert differs.keys() - WELL.keys() <= {f'{BUCKET}"30.0"}}'}
        test = case(broken, WELL | differs, {quiet: {}, fires: {broken: 1}})
    file = tmp_path / "rules.json"
    file.write_text(
        json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]})
    )
    assert "SUCCESS" in promtool("test", "rules", file)
