"""A few KiB of brackets from a peer are an error, not the end of the process."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

_EVERYTHING = """
import sys
import corolla_core.chain.devnet_keys, corolla_core.chain.keystore, corolla_core.chain.rpc, corolla_core.chain.sender
import corolla.client, corolla_node.node
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr[-500:]}"
    return done.stdout.strip()


def test_no_import_of_ours_raises_the_recursion_limit() -> None:
    assert run(_EVERYTHING + "print(sys.getrecursionlimit())") == run("import sys; print(sys.getrecursionlimit())")


@pytest.mark.parametrize("depth", [1_000, 60_000])
def test_a_deeply_nested_message_is_malformed_and_not_a_crash(depth: int) -> None:
    code = f"""
    from struct import pack
    from corolla_core.protocol.errors import MalformedMessage
    from corolla_core.swarm.frame import decode_message

    # a Fault whose error holds arrays in arrays in arrays
    fault = b"\\x94\\xa5fault\\x81\\xa1a" + b"\\x91" * {depth} + b"\\xc0" + b"\\xc0\\xc0"
    try:
        decode_message(memoryview(fault))
    except MalformedMessage:
        print("malformed")
    """
    assert run(_EVERYTHING + textwrap.dedent(code)) == "malformed"
