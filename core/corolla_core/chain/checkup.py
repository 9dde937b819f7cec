"""What may be wrong with a chain, seen from here: the endpoint, which chain it is, its clock, and money for gas."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from corolla_core.chain.devnet_keys import DEVNET_CHAIN_IDS
from corolla_core.chain.network import Network
from corolla_core.chain.rpc import Chain, Transport, hex_int
from corolla_core.protocol.errors import ChainError, WrongChain
from corolla_core.protocol.finding import Finding
from corolla_core.protocol.ids import Address

SKEW_SECONDS = 30
STALLED_SECONDS = 900
TRANSACTION_GAS = 300_000
"""Opening a tranche or redeeming a small batch takes no more."""


@asynccontextmanager
async def examined_chain(
    network: Network,
    findings: list[Finding],
    *,
    transport: Transport | None = None,
    now: Callable[[], float] = time.time,
    deadline: float = 5.0,
) -> AsyncIterator[Chain | None]:
    """The chain, where it can be used; what is found goes to `findings`."""
    try:
        chain = await Chain.connect(network, transport=transport, deadline=deadline)
    except WrongChain as error:
        advice = f"{network.rpc_url} is not the chain of {network.name}: correct rpc_url in the network file"
        findings.append(Finding("rpc", "bad", f"chain {error.data['found']}, not {network.chain_id}", advice))
        yield None
        return
    except ChainError as error:
        advice = f"is the endpoint {network.rpc_url} up? On a devnet: `corolla devnet up`"
        findings.append(Finding("rpc", "bad", str(error), advice))
        yield None
        return
    async with chain:
        findings.append(Finding("rpc", "good", f"{network.rpc_url}, chain {network.chain_id}"))
        try:
            idle = network.chain_id in DEVNET_CHAIN_IDS
            findings.append(judge_clock(now(), float(await chain.now()), idle_chain=idle))
            if await chain.request("eth_getCode", network.escrow, "latest") in ("0x", None):
                advice = "the chain was started anew, or the file is another's: get the network's file again"
                findings.append(Finding("contracts", "bad", f"no escrow at {network.escrow}", advice))
                yield None
                return
            yield chain
        except ChainError as error:
            findings.append(Finding("rpc", "bad", str(error), "the endpoint refuses ordinary calls: use another"))


def judge_clock(here: float, chain: float, *, idle_chain: bool) -> Finding:
    """`here` and the newest block's time in Unix seconds. A chain that mines only on demand may lag for long."""
    ahead = chain - here
    if ahead > SKEW_SECONDS:
        advice = "set this machine's clock (NTP): it is behind, and vouchers may seem good for longer than they are"
        return Finding("clock", "bad", f"the chain is {ahead:.0f} s ahead", advice)
    if -ahead > STALLED_SECONDS and not idle_chain:
        advice = "set this machine's clock (NTP); if it is right, the RPC endpoint lags: use another"
        return Finding("clock", "poor", f"the newest block is {-ahead:.0f} s old", advice)
    return Finding("clock", "good", f"the newest block is {max(0.0, -ahead):.0f} s old")


async def examine_gas(chain: Chain, account: Address) -> Finding:
    """Raises ChainError."""
    return judge_gas(await chain.balance(account), hex_int(await chain.request("eth_gasPrice")), account)


def judge_gas(balance: int, gas_price: int, account: Address) -> Finding:
    """`balance` in Wei."""
    transactions = balance // max(1, gas_price * TRANSACTION_GAS)
    advice = f"send some of the chain's coin to {account}"
    if balance == 0 or transactions < 1:
        return Finding("gas", "bad", f"{balance} Wei pay for no transaction", advice)
    if transactions < 10:
        return Finding("gas", "poor", f"enough for {transactions} transactions", advice)
    return Finding("gas", "good", f"enough for {transactions} transactions")
