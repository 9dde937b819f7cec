"""The chain the other tests stand on."""

from __future__ import annotations

from ganache import Ganache


def test_time_moves_only_forward_when_told(ganache: Ganache) -> None:
    before = int(ganache.rpc("eth_getBlockByNumber", "latest", False)["timestamp"], 16)
    ganache.advance(3600)
    assert int(ganache.rpc("eth_getBlockByNumber", "latest", False)["timestamp"], 16) >= before + 3600


def test_reverting_to_a_snapshot_forgets_later_blocks(ganache: Ganache) -> None:
    height = int(ganache.rpc("eth_blockNumber"), 16)
    snapshot = ganache.snapshot()
    ganache.mine(3)
    ganache.revert(snapshot)
    assert int(ganache.rpc("eth_blockNumber"), 16) == height
