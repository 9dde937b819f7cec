"""The corolla command without a network: accounts, settings, judgements of the doctor, and quick help."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from corolla.cli.main import app
from corolla.cli.text import show_many
from corolla.values import Generation, Usage
from corolla_core.chain.checkup import judge_clock
from corolla_core.protocol.errors import NoRoute
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import Nectar
from corolla_core.swarm.checkup import judge_swarm

KEY = "0x4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
ADDRESS = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23"


@pytest.fixture
def corolla(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    password = tmp_path / "password"
    password.write_text("correct horse\n")

    def run(*arguments: str, stdin: str | None = None, **environ: str) -> Result:
        settings = {"COROLLA_HOME": str(tmp_path / "home"), "COROLLA_PASSWORD_FILE": str(password), "NO_COLOR": "1"}
        return CliRunner().invoke(app, list(arguments), input=stdin, env=settings | environ)

    monkeypatch.chdir(tmp_path)
    return run


def test_a_new_account_is_shown_and_never_overwritten(corolla: Any, tmp_path: Path) -> None:
    made = corolla("account", "new", "--json")
    assert made.exit_code == 0, made.output
    address = json.loads(made.stdout)["address"]
    keystore = tmp_path / "home" / "keys" / "default.json"
    assert keystore.stat().st_mode & 0o777 == 0o600
    (shown,) = json.loads(corolla("account", "show", "--json").stdout)
    assert shown["address"] == address
    again = corolla("account", "new")
    assert again.exit_code == 2
    assert "already there" in again.stderr
    assert again.stdout == ""


def test_an_imported_key_is_read_from_stdin_and_kept_encrypted(corolla: Any, tmp_path: Path) -> None:
    made = corolla("account", "import", "mine", "--json", stdin=f"{KEY}\n")
    assert json.loads(made.stdout)["address"] == ADDRESS
    assert KEY[2:] not in (tmp_path / "home" / "keys" / "mine.json").read_text()


@pytest.mark.parametrize("typed", ["", "zz", KEY[:-2]])
def test_what_is_no_key_is_not_imported(corolla: Any, tmp_path: Path, typed: str) -> None:
    refused = corolla("account", "import", stdin=f"{typed}\n")
    assert refused.exit_code == 1
    assert not (tmp_path / "home" / "keys").exists()


def test_config_show_tells_where_each_value_is_from(corolla: Any, tmp_path: Path) -> None:
    (tmp_path / "corolla.toml").write_text("[client]\nmax_tokens = 77\n")
    shown = json.loads(corolla("config", "show", "--json", COROLLA_TEMPERATURE="0.5").stdout)
    assert shown["max_tokens"] == {"value": 77, "source": str(tmp_path / "corolla.toml")}
    assert shown["temperature"] == {"value": 0.5, "source": "COROLLA_TEMPERATURE"}
    assert shown["network"]["source"] == "default"


def test_a_bad_setting_is_named_with_its_source(corolla: Any) -> None:
    refused = corolla("balance", COROLLA_SPENDING_LIMIT="lots")
    assert refused.exit_code == 2
    assert "spending_limit" in refused.stderr
    assert "COROLLA_SPENDING_LIMIT" in refused.stderr


@pytest.mark.parametrize(
    "command",
    [["generate", "hi"], ["generate", "a\nb", "--lines"], ["balance"], ["deposit", "1"], ["models"], ["chat"]],
)
def test_an_unknown_network_is_one_line_on_stderr(corolla: Any, command: list[str]) -> None:
    refused = corolla(*command, "--network", "nowhere")
    assert refused.exit_code == 2
    assert refused.stdout == ""
    assert refused.stderr.count("\n") == 1
    assert "nowhere" in refused.stderr


def test_of_many_prompts_each_is_a_line_and_one_that_failed_shows_in_the_exit_status(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = Generation("text", (1, 2), "length", Usage(3, 0, 2, 1.0, 0.5, Nectar(7), ()), ())
    show_many([made])
    with pytest.raises(typer.Exit) as left:
        show_many([made, NoRoute("nobody", missing=[4])])
    assert left.value.exit_code == 1
    first, again, failed = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == again
    assert (first["text"], first["usage"]["cost"]) == ("text", "7")
    assert failed["error"]["code"] == NoRoute("nobody", missing=[4]).code
    assert "nobody" in failed["error"]["message"]


def test_the_doctor_says_what_to_do_without_a_network(corolla: Any) -> None:
    examined = corolla("doctor", "--json")
    assert examined.exit_code == 1
    rows = {row["check"]: row for row in json.loads(examined.stdout)}
    assert rows["network"]["state"] == "bad"
    assert "devnet up" in rows["network"]["advice"]
    assert rows["disk"]["state"] in ("good", "poor")


@pytest.mark.parametrize(
    ("chain", "idle", "state"),
    [
        (1000.0, False, "good"),
        (1100.0, False, "bad"),
        (1100.0, True, "bad"),
        (50.0, False, "poor"),
        (50.0, True, "good"),
    ],
)
def test_clocks_that_differ_are_judged_by_direction(chain: float, idle: bool, state: str) -> None:
    found = judge_clock(1001.0, chain, idle_chain=idle)
    assert found.state == state
    assert bool(found.advice) == (state != "good")


def test_uncovered_blocks_and_silent_nodes_are_named() -> None:
    nodes: Any = [SimpleNamespace(span=Span(0, 2)), SimpleNamespace(span=Span(3, 4))]
    coverage, silent = judge_swarm(nodes, 4, 1)
    assert (coverage.state, silent.state) == ("bad", "poor")
    assert "[2]" in coverage.found
    assert judge_swarm(nodes, 4, 2)[1].state == "bad"


def test_help_imports_no_torch() -> None:
    code = "import sys; from corolla.cli.main import app; import corolla; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_can_be_had() -> None:
    import corolla

    assert all(getattr(corolla, name) is not None for name in corolla.__all__)
    with pytest.raises(AttributeError):
        _ = corolla.nonsense


def test_speculation_is_a_setting_of_generate_and_chat(corolla: Any) -> None:
    for command in ("generate", "chat"):
        shown = corolla(command, "--help", COLUMNS="200").output
        assert "--speculate" in shown
        assert "--max-waste" in shown
    rows = json.loads(corolla("config", "show", "--json", COROLLA_SPECULATE="off").stdout)
    assert (rows["speculate"]["value"], rows["max_waste"]["value"]) == ("off", 0.5)
    refused = corolla("generate", "hello", COROLLA_MAX_WASTE="-1")
    assert refused.exit_code != 0
    assert "max_waste" in refused.output


def test_a_highest_price_is_a_setting_and_no_amount_below_nothing(corolla: Any) -> None:
    shown = corolla("generate", "--help", COLUMNS="200")
    assert "--max-price" in shown.output
    refused = corolla("generate", "hello", COROLLA_MAX_PRICE="-1")
    assert refused.exit_code != 0
    assert "max_price" in refused.output
