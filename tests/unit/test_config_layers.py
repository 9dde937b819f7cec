"""Settings come from the nearest layer that has them, and say which one that was."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import pytest
import structlog

from corolla.logs import quiet_unless_configured
from corolla_core.config import LayeredSettings, home, load_settings, setup_logging
from corolla_core.protocol.errors import ConfigError


class Example(LayeredSettings):
    table = "node"
    price: int = 1
    network: str = "devnet"
    chunk_tokens: int = 8


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "home").mkdir()
    return {"COROLLA_HOME": str(tmp_path / "home")}


def test_each_layer_beats_the_one_below_it(tmp_path: Path, environ: dict[str, str]) -> None:
    def read(**flags: object) -> tuple[int, str]:
        loaded = load_settings(Example, flags=flags, environ=environ, cwd=tmp_path)
        return loaded.settings.price, loaded.sources.get("price", "default")

    assert read() == (1, "default")
    (tmp_path / "home" / "config.toml").write_text("price = 2")
    assert read() == (2, str(tmp_path / "home" / "config.toml"))
    (tmp_path / "corolla.toml").write_text("price = 3\n[node]\nprice = 4")
    assert read() == (4, str(tmp_path / "corolla.toml"))
    environ["COROLLA_PRICE"] = "5"
    assert read() == (5, "COROLLA_PRICE")
    environ["COROLLA_NODE_PRICE"] = "6"
    assert read() == (6, "COROLLA_NODE_PRICE")
    assert read(price=7) == (7, "flag")
    assert read(price=None) == (6, "COROLLA_NODE_PRICE")


def test_the_table_lists_every_setting_with_its_source(tmp_path: Path, environ: dict[str, str]) -> None:
    environ["COROLLA_NETWORK"] = "testnet"
    rows = load_settings(Example, environ=environ, cwd=tmp_path).table()
    assert [(row.name, row.value, row.source) for row in rows] == [
        ("price", 1, "default"),
        ("network", "testnet", "COROLLA_NETWORK"),
        ("chunk_tokens", 8, "default"),
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("[node]\nprise = 3", "prise"), ("[node", "corolla.toml"), ("node = 3", "not a table"), ("price = 'x'", "price")],
)
def test_a_bad_file_is_a_config_error_that_says_where(
    tmp_path: Path, environ: dict[str, str], text: str, complaint: str
) -> None:
    (tmp_path / "corolla.toml").write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        load_settings(Example, environ=environ, cwd=tmp_path)


def test_a_bad_environment_value_names_its_variable(tmp_path: Path, environ: dict[str, str]) -> None:
    environ["COROLLA_NODE_PRICE"] = "cheap"
    with pytest.raises(ConfigError, match="COROLLA_NODE_PRICE"):
        load_settings(Example, environ=environ, cwd=tmp_path)


def test_home_is_the_environments_choice_or_dot_corolla() -> None:
    assert home({"COROLLA_HOME": "/srv/corolla"}) == Path("/srv/corolla")
    assert home({}) == Path.home() / ".corolla"


@pytest.mark.parametrize("after_a_client", [False, True])
def test_logs_off_a_terminal_are_json_lines_with_hex_bytes(after_a_client: bool) -> None:
    structlog.reset_defaults()
    if after_a_client:  # whose own, quieter logging must not outlive a program's choice
        quiet_unless_configured()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    try:
        setup_logging("info", stream=stream)
        structlog.get_logger("corolla.test").info("served", session=b"\x01\x02")
        logging.getLogger("other").warning("plain")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
    first, second = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (first["event"], first["session"], first["level"]) == ("served", "0x0102", "info")
    assert (second["event"], second["logger"]) == ("plain", "other")
