"""A program that uses the client and sets up no logging keeps its stdout to itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import structlog
from corolla import Client, Signer
from corolla_core.chain.network import Network
from pathlib import Path
{before}
A = Signer(bytes([1]) * 32).address
network = Network(name="x", chain_id=1337, rpc_url="http://127.0.0.1:1", token=A, registry=A, models=A, escrow=A)
Client(network=network, signer=Signer(bytes([2]) * 32), home_dir=Path("/nonexistent"))
log = structlog.get_logger("corolla.session")
log.info("lost a node")
log.warning("could not pay ahead")
"""
OWN = "structlog.configure(processors=[structlog.processors.KeyValueRenderer()])"


def run(before: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before=before)], capture_output=True, text=True, check=True, timeout=60
    )


def test_warnings_go_to_stderr_and_nothing_goes_to_stdout() -> None:
    done = run("")
    assert done.stdout == ""
    assert "could not pay ahead" in done.stderr
    assert "lost a node" not in done.stderr


@pytest.mark.parametrize("line", ["event='lost a node'", "event='could not pay ahead'"])
def test_a_programs_own_logging_is_left_as_it_is(line: str) -> None:
    assert line in run(OWN).stdout
