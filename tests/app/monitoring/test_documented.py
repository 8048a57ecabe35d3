"""Documentation, alert rules and the dashboard keep up with the metrics that there are."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from app.jobs import counts

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[3]
ALERTS = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())
DASHBOARD = json.loads((ROOT / "deploy/grafana/modelpress.json").read_text())
NAME = re.compile(r"\b((?:modelpress|process)_[a-z_]+)\b")


@pytest.fixture
async def exported(api: Any) -> dict[str, str]:
    """Name -> type, of every metric."""
    text = (await api.client_with({}).get("/metrics")).text
    found = {}
    for family in text_string_to_metric_families(text):
        name = family.name + ("_total" if family.type == "counter" else "")
        found[name] = family.type
    return found


def _documented() -> dict[str, str]:
    text = (ROOT / "docs/observability.md").read_text()
    return dict(re.findall(r"^\| `([a-z_]+)` \| (gauge|counter|histogram) \|", text, re.MULTILINE))


def _rules() -> Iterator[dict[str, Any]]:
    for group in ALERTS["groups"]:
        yield from group["rules"]


def _expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in _rules())
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", []))


async def test_every_metric_is_documented(exported: dict[str, str]) -> None:
    assert _documented() == exported


def test_labels_of_counts_are_documented() -> None:
    text = (ROOT / "docs/observability.md").read_text()
    for definition in counts.ALL:
        labels = ", ".join(f"`{label}`" for label in definition.labels)
        assert re.search(rf"^\| `{definition.name}` \| \w+ \| {labels} \|", text, re.MULTILINE), definition.name


async def test_alerts_and_panels_use_metrics_that_exist(exported: dict[str, str]) -> None:
    series = set(exported)
    for name, kind in exported.items():
        if kind == "histogram":
            series |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    expressions = list(_expressions())
    assert len(expressions) > 25
    for expression in expressions:
        used = NAME.findall(expression)
        assert used, expression
        assert set(used) <= series, expression


def test_alerts_point_at_sections_of_the_runbook() -> None:
    headings = re.findall(r"^#+ (.+)$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for rule in _rules():
        file, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert (file, anchor in anchors) == ("docs/operations.md", True), rule
        assert rule["labels"]["severity"] in ("warning", "critical")


def test_the_dashboard_is_whole() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
