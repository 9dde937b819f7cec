"""What lies in `deploy/` names only commands, options, settings and metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import chain
from typing import Any

import click
import pytest
import typer
import yaml
from compose import DEPLOY, ours, services, unit_commands
from test_metrics import STATUS

from corolla.cli.main import app as corolla
from corolla.config import ClientSettings
from corolla.gateway.metrics import Metrics
from corolla_core.config import LayeredSettings
from corolla_node.cli.main import app as node
from corolla_node.config import NodeSettings
from corolla_node.metrics import NodeMetrics, StatusCollector
from corolla_validator.cli.main import app as validator
from corolla_validator.config import ValidatorSettings
from corolla_validator.metrics import ValidatorMetrics

PROGRAMS = {"corolla": corolla, "corolla-node": node, "validator": validator}
COMMANDS = {name: argv for name, argv in {**ours(), **unit_commands()}.items() if argv[0] != "python"}
DASHBOARD = json.loads((DEPLOY / "grafana/corolla.json").read_text())
RULES = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())


def check(argv: list[str]) -> None:
    """Raises click.UsageError for a command or an option that there is not."""
    command: Any = typer.main.get_command(PROGRAMS[argv[0]])
    rest = argv[1:]
    while isinstance(command, click.Group) or hasattr(command, "commands"):
        name = rest.pop(0)
        if name not in command.commands:
            raise click.UsageError(f"no command {name}")
        command = command.commands[name]
    command.make_parser(command.context_class(command)).parse_args(list(rest))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_exists(name: str) -> None:
    check(COMMANDS[name])


def test_the_check_finds_what_does_not_exist() -> None:
    check(["corolla-node", "up", "model", "--port=1"])
    for wrong in (["corolla-node", "up", "--portt=1"], ["validator", "ran"], ["corolla", "devnet", "deploy", "--rp=x"]):
        with pytest.raises(Exception, match=r"(?i)no such|no command"):
            check(wrong)


def test_every_setting_in_the_environment_exists() -> None:
    kinds: dict[str, type[LayeredSettings]] = {
        "NODE": NodeSettings,
        "VALIDATOR": ValidatorSettings,
        "CLIENT": ClientSettings,
    }
    named = [name for service in services().values() for name in service.get("environment", {})]
    named += re.findall(r"COROLLA_(?:NODE|VALIDATOR)_[A-Z_]+", (DEPLOY / "Dockerfile").read_text())
    given = [name.removeprefix("COROLLA_").split("_", 1) for name in named if name.startswith("COROLLA_")]
    assert len(given) > 8
    for table, field in given:
        assert field.lower() in kinds[table].model_fields


def test_what_depends_on_something_names_it() -> None:
    known = services()
    for service in known.values():
        assert set(service.get("depends_on", ())) <= set(known)
    declared = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["volumes"]
    mounted = [volume.split(":")[0] for service in known.values() for volume in service.get("volumes", ())]
    assert {name for name in mounted if not name.startswith(".")} == set(declared)
    for path in (name for name in mounted if name.startswith(".")):
        assert (DEPLOY / path).exists()
    databases = re.findall(r"DATABASE (\w+)", (DEPLOY / "postgres/databases.sql").read_text())
    stores = [
        url for service in known.values() for name, url in service.get("environment", {}).items() if "STORE" in name
    ]
    assert {url.rsplit("/", 1)[1] for url in stores} == set(databases)


def test_prometheus_scrapes_every_service_that_has_metrics() -> None:
    jobs = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    targets = {target for job in jobs for config in job["static_configs"] for target in config["targets"]}
    expected = {f"{name}:9100" for name, argv in ours().items() if "--metrics-port=9100" in argv}
    assert targets == expected | {"gateway:8000"}


def exported() -> dict[str, set[str]]:
    """Every family of metrics, with the names of its samples."""
    collectors = (NodeMetrics(), StatusCollector(lambda: STATUS), ValidatorMetrics(lambda: 0.0))
    families = list(chain.from_iterable(collector.collect() for collector in collectors))
    families += Metrics().registry.collect()
    found = {}
    for family in families:
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        found[family.name] = {family.name + suffix for suffix in suffixes}
    return found


def queried() -> set[str]:
    """The names in every query of the dashboard and the alerts."""
    queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    queries += [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]
    return {name for query in queries for name in re.findall(r"corolla_[a-z0-9_]+", query)}


def test_the_dashboard_and_the_alerts_ask_for_metrics_that_are_exported() -> None:
    assert queried() <= set().union(*exported().values())


def test_every_metric_that_is_exported_is_shown_or_watched() -> None:
    asked = queried()
    assert [family for family, names in exported().items() if not names & asked] == []


def test_no_two_panels_overlap() -> None:
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23


def test_a_unit_waits_for_as_long_as_its_program_takes_to_stop() -> None:
    needed = NodeSettings().drain_timeout + 70  # the last redemption's minute and the last answers, see `running`
    unit = (DEPLOY / "systemd/corolla-node.service").read_text()
    stop = re.search(r"^TimeoutStopSec=(\d+)$", unit, flags=re.MULTILINE)
    assert stop is not None
    assert int(stop[1]) > needed
    grace = services()["node-0"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > needed


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_takes_the_units() -> None:
    units = [str(unit) for unit in (DEPLOY / "systemd").glob("*.service")]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    # Where Corolla is not installed its program is missing; nothing else may be said of the units.
    said = [line for line in done.stderr.splitlines() if "corolla" in line and "is not executable" not in line]
    assert said == []
