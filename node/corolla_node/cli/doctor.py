"""`node doctor`: each thing a node needs to serve and be paid, looked at on its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from corolla_core.config import home, keystore_path
from corolla_core.config.checkup import examine_machine, examine_port
from corolla_core.protocol.errors import CorollaError
from corolla_core.protocol.finding import Finding
from corolla_core.protocol.ids import Address
from corolla_node.config import NodeSettings
from corolla_node.data_dir import DataDir

if TYPE_CHECKING:
    from corolla_core.chain.rpc import Chain


async def examine(settings: NodeSettings, folder: DataDir) -> list[Finding]:
    """Every check that can be made; one that needs what an earlier one missed is left out."""
    from corolla_core.chain.checkup import examined_chain
    from corolla_core.chain.network import resolve_network
    from corolla_core.swarm.checkup import examine_swarm
    from corolla_node.engine import usable_cores

    findings = examine_machine(folder.path, threads=settings.threads, cores=usable_cores())
    findings += await _ports(settings, folder)
    try:
        network = resolve_network(settings.network, folder=home() / "networks")
    except CorollaError as error:
        return [*findings, Finding("network", "bad", str(error), "give --network a file, or a name in <home>/networks")]
    findings.append(Finding("network", "good", f"{network.name}, chain {network.chain_id}"))
    account = _account(settings, findings)
    async with examined_chain(network, findings) as chain:
        if chain is not None and account is not None:
            await _stake(chain, account, findings)
    if settings.model is None:
        return [*findings, Finding("model", "bad", "no model is chosen", "name one: `node up MODEL`")]
    from corolla_node.loading import open_model

    try:
        _checkpoint, manifest = await asyncio.to_thread(open_model, settings.model)
    except CorollaError as error:
        return [*findings, Finding("model", "bad", str(error), "get the model's checkpoint, with its manifest")]
    found, _spans = await examine_swarm(network.name, network.bootstrap, manifest.root, manifest.num_blocks)
    return findings + found


async def _ports(settings: NodeSettings, folder: DataDir) -> list[Finding]:
    """Whether its ports are free; of a node that runs, whether it can be reached where it says it is."""
    from corolla_core.swarm.checkup import answers_at

    host, status = settings.public_host or settings.host, folder.status() or {}
    if folder.running_pid() is None:
        ports = [("port", settings.host, settings.port, "port")]
        if settings.metrics_port is not None:
            ports.append(("metrics port", settings.metrics_host, settings.metrics_port, "metrics_port"))
        return [examine_port(check, at, port, setting=setting) for check, at, port, setting in ports]
    if "port" not in status:
        return [Finding("port", "poor", "the node is not up yet", "wait until it has loaded its blocks")]
    found = f"{host}:{status['port']}"
    if await answers_at(host, int(status["port"])):
        return [Finding("port", "good", f"{found} answers")]
    advice = "open the port in the firewall, or set public_host to where others reach this machine"
    return [Finding("port", "bad", f"{found} does not answer", advice)]


def _account(settings: NodeSettings, findings: list[Finding]) -> Address | None:
    from corolla_core.chain.keystore import account_address

    if settings.account is None:
        findings.append(Finding("account", "bad", "no account is named", "name its keystore with --account"))
        return None
    path = keystore_path(settings.account)
    try:
        address = account_address(path)
    except CorollaError as error:
        findings.append(Finding("account", "bad", str(error), "make one with `corolla account new`"))
        return None
    findings.append(Finding("account", "good", f"{address} in {path}"))
    return address


async def _stake(chain: Chain, account: Address, findings: list[Finding]) -> None:
    """Raises ChainError."""
    from corolla_core.chain.checkup import examine_gas
    from corolla_core.chain.registry import Registry
    from corolla_core.chain.token import Token

    findings.append(await examine_gas(chain, account))
    registry = Registry(chain)
    tokens, needed = await Token(chain).balance_of(account), await registry.min_stake()
    active, known = await registry.is_active(account), await registry.node(account)
    findings.append(judge_stake(active=active, registered=known.registered, tokens=tokens, needed=needed))


def judge_stake(*, active: bool, registered: bool, tokens: int, needed: int) -> Finding:
    """`tokens` are the account's, `needed` the least stake."""
    from corolla_core.protocol.units import Nectar, nectar_to_text

    if active:
        return Finding("stake", "good", "the registry takes it for an active node")
    if registered:
        advice = "its stake is too low, unbonding or jailed: `node stake`, and see `node earnings`"
        return Finding("stake", "bad", "registered, but not active", advice)
    found = f"not registered; {nectar_to_text(Nectar(tokens))} in the account, {nectar_to_text(Nectar(needed))} needed"
    if tokens < needed:
        return Finding("stake", "bad", found, "get Nectar into the account: `node up` stakes it")
    return Finding("stake", "good", found)
