"""The chain the other tests stand on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

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


#: Reverts once its slot 0 is set; else calls an empty account, counts to 100, and sets it.
ONCE = bytes.fromhex(
    "602e600c600039602e6000f3"
    "6000546028576000600060006000600061dead5af1506064"
    "5b600190038060185750600160005500"
    "5b60006000fd"
)


def test_gas_is_estimated_while_others_send_what_makes_it_fail(ganache: Ganache) -> None:
    one, *others = (signer.address for signer in ganache.accounts)
    sent = ganache.rpc("eth_sendTransaction", {"from": one, "data": "0x" + ONCE.hex(), "gas": "0x100000"})
    contract = ganache.rpc("eth_getTransactionReceipt", sent)["contractAddress"]

    def estimate(who: str) -> str:
        try:
            return ganache.rpc("eth_estimateGas", {"from": who, "to": contract}, timeout=20)
        except RuntimeError as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        estimates = [pool.submit(estimate, who) for who in others[:8]]
        pool.submit(ganache.rpc, "eth_sendTransaction", {"from": one, "to": contract, "gas": "0x100000"}).result()
    for each in estimates:
        assert each.result().startswith("0x") or "revert" in each.result()
