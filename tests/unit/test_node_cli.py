"""The `node` command: our verbs are ours, everything else is Node.js's, and a mistake is one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from corolla_node.cli.main import app
from corolla_node.cli.shim import next_node
from corolla_node.data_dir import DataDir

OURS = Path(sys.executable).with_name("node")


def shim(*arguments: str, path: str | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PATH": f"{OURS.parent}:{os.environ['PATH']}" if path is None else path}
    return subprocess.run([str(OURS), *arguments], env=env, input=stdin, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module", autouse=True)
def real_node() -> str:
    found = next_node(str(OURS), os.environ["PATH"])
    if not OURS.exists() or found is None:
        pytest.fail("these tests need the installed `node` script and a Node.js behind it")
    return found


def test_what_is_not_ours_reaches_node_js(real_node: str) -> None:
    assert shim("-e", "console.log(process.argv.length + 1)").stdout == "2\n"
    assert shim(stdin="console.log('from stdin')").stdout == "from stdin\n"
    straight = subprocess.run([real_node, "--version"], capture_output=True, text=True, check=True)
    assert shim("--version").stdout == straight.stdout
    assert shim("-e", "process.exit(7)").returncode == 7


def test_a_script_named_by_path_gets_its_arguments(tmp_path: Path) -> None:
    script = tmp_path / "up.js"
    script.write_text("console.log(process.argv.slice(2).join(' '))")
    assert shim(str(script), "--json", "status").stdout == "--json status\n"


def test_the_way_to_node_js_imports_nothing_heavy() -> None:
    code = (
        "import sys; from corolla_node.cli import shim; "
        "print(sorted(set(sys.modules) & {'torch', 'typer', 'pydantic', 'web3', 'hivemind', 'corolla_core'}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_without_a_node_js_it_says_so_with_status_127(tmp_path: Path) -> None:
    result = shim("-e", "1", path=str(OURS.parent))
    assert result.returncode == 127
    assert "no Node.js behind it" in result.stderr
    # A second virtual environment's shim is not taken for Node.js either.
    (tmp_path / "node").write_bytes(OURS.read_bytes())
    (tmp_path / "node").chmod(0o755)
    assert shim("-e", "1", path=f"{OURS.parent}:{tmp_path}").returncode == 127


def test_a_link_to_ourselves_is_not_another_node(tmp_path: Path) -> None:
    (tmp_path / "node").symlink_to(OURS)
    assert next_node(str(OURS), str(tmp_path)) is None
    shutil.copy(sys.executable, tmp_path / "real")
    other = tmp_path / "other"
    other.mkdir()
    (other / "node").symlink_to(tmp_path / "real")
    assert next_node(str(OURS), f"{tmp_path}::{other}") == str(other / "node")


def test_our_verbs_are_ours() -> None:
    help_text = shim("--corolla-help").stdout
    assert all(verb in help_text for verb in ("up", "down", "status", "earnings", "stake", "unstake", "withdraw"))


def run(tmp_path: Path, *command: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, command, env={"COROLLA_HOME": str(tmp_path), "NO_COLOR": "1"})
    return result.exit_code, result.stdout, result.stderr


def test_status_of_no_node_is_an_answer_and_status_1(tmp_path: Path) -> None:
    code, out, _ = run(tmp_path, "status", "--json")
    assert code == 1
    assert json.loads(out) == {"running": False, "state": "stopped", "pid": None}


def test_status_of_a_node_that_is_still_loading_is_not_its_predecessors(tmp_path: Path) -> None:
    folder = DataDir(tmp_path / "node")
    lock = folder.lock()
    folder.write_status({"state": "online", "pid": 1})
    code, out, _ = run(tmp_path, "status", "--json")
    assert (code, json.loads(out)["state"]) == (0, "loading")
    folder.write_status({"state": "draining", "pid": os.getpid()})
    assert json.loads(run(tmp_path, "status", "--json")[1])["state"] == "draining"
    lock.release()


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["up"], "name a model"),
        (["up", "m"], "--account"),
        (["up", "m", "--account", "nowhere.json", "--network", "unheard-of"], "unheard-of"),
        (["up", "m", "--blocks", "9:3"], "blocks"),
        (["up", "m", "--price", "-1"], "price"),
        (["down"], "no node is running"),
        (["withdraw"], "--account"),
        (["unstake"], "amount"),
    ],
)
def test_a_mistake_is_one_line_on_stderr(tmp_path: Path, command: list[str], complaint: str) -> None:
    code, out, error = run(tmp_path, *command)
    assert (code, out) == (2, "")
    assert complaint in error
    assert "Traceback" not in error


def test_an_account_may_be_named_as_the_clients_command_names_it(tmp_path: Path) -> None:
    (tmp_path / "networks").mkdir()
    network = tmp_path / "networks" / "devnet.json"
    zero = "0x" + "0" * 40
    network.write_text(
        json.dumps(
            {"name": "devnet", "chain_id": 1337, "rpc_url": "http://127.0.0.1:1"}
            | dict.fromkeys(("token", "registry", "models", "escrow"), zero)
        )
    )
    password = tmp_path / "password"
    password.write_text("secret")
    code, _, error = run(tmp_path, "up", "m", "--account", "nobody", "--password-file", str(password))
    assert code == 2
    assert str(tmp_path / "keys" / "nobody.json") in error


def test_config_show_tells_where_each_value_is_from(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[node]\nprice = 5\n")
    shown = json.loads(run(tmp_path, "config", "show", "--json")[1])
    assert shown["price"] == {"value": 5, "source": str(tmp_path / "config.toml")}
    assert shown["dtype"] == {"value": "auto", "source": "default"}
