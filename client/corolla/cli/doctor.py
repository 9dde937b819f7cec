"""`corolla doctor`: each thing a generation needs, looked at on its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from corolla.cli.context import DEFAULT_ACCOUNT, network_of, with_devnet
from corolla.config import ClientSettings
from corolla_core.config import home, keystore_path
from corolla_core.config.checkup import examine_machine
from corolla_core.protocol.errors import CorollaError
from corolla_core.protocol.finding import Finding
from corolla_core.protocol.units import Nectar, nectar_to_text

if TYPE_CHECKING:
    from corolla_core.chain.rpc import Chain
    from corolla_core.protocol.ids import ModelRoot
    from corolla_core.swarm.announcement import Announcement


async def examine(settings: ClientSettings) -> list[Finding]:
    """Every check that can be made; one that needs what an earlier one missed is left out."""
    from corolla_core.chain.checkup import examined_chain
    from corolla_core.swarm.checkup import examine_swarm

    settings = with_devnet(settings)
    findings = examine_machine(home(), threads=settings.threads)
    try:
        network = network_of(settings)
    except CorollaError as error:
        advice = "start one with `corolla devnet up`, or give --network a file"
        return [*findings, Finding("network", "bad", str(error), advice)]
    findings.append(Finding("network", "good", f"{network.name}, chain {network.chain_id}"))
    free = None
    async with examined_chain(network, findings) as chain:
        if chain is not None:
            free = await _account(settings, chain, findings)
    model = await asyncio.to_thread(_manifest_of, settings)
    if isinstance(model, Finding):
        return [*findings, model]
    root, num_blocks = model
    found, spans = await examine_swarm(network.name, network.bootstrap, root, num_blocks)
    findings += found
    if free and spans:
        findings += judge_means(free, spans, num_blocks, settings.max_tokens)
    return findings


def judge_means(free: Nectar, spans: Sequence[Announcement], num_blocks: int, tokens: int) -> list[Finding]:
    """Whether what is deposited pays for one text of `tokens` at the nodes' median price."""
    price = int(median(one.price_per_token_block for one in spans)) * num_blocks
    if price and free // price < tokens:
        found = f"what is deposited pays for {free // price} tokens, of {tokens} a text may have"
        return [Finding("deposit", "poor", found, "deposit more: `corolla deposit AMOUNT`, or ask for fewer tokens")]
    return []


async def _account(settings: ClientSettings, chain: Chain, findings: list[Finding]) -> Nectar | None:
    """What is deposited and free; None where there is no account. Raises ChainError."""
    from corolla_core.chain.checkup import examine_gas
    from corolla_core.chain.escrow import Escrow
    from corolla_core.chain.keystore import account_address
    from corolla_core.chain.token import Token

    path = keystore_path(settings.account or DEFAULT_ACCOUNT)
    try:
        address = account_address(path)
    except CorollaError as error:
        findings.append(Finding("account", "bad", str(error), "make one with `corolla account new`"))
        return None
    findings.append(Finding("account", "good", f"{address} in {path}"))
    tokens, free = await Token(chain).balance_of(address), await Escrow(chain).free_balance(address)
    findings.append(judge_balance(free, tokens))
    findings.append(await examine_gas(chain, address))
    return free


def judge_balance(free: Nectar, tokens: Nectar) -> Finding:
    held = f"{nectar_to_text(free)} deposited and free, {nectar_to_text(tokens)} in the account"
    if free:
        return Finding("balance", "good", held)
    if tokens:
        return Finding("balance", "poor", held, "deposit some: `corolla deposit AMOUNT`")
    return Finding("balance", "bad", held, "get some Nectar into the account, then `corolla deposit AMOUNT`")


def _manifest_of(settings: ClientSettings) -> tuple[ModelRoot, int] | Finding:
    from corolla.local import checkpoint_ref
    from corolla_core.model.checkpoint import open_checkpoint
    from corolla_core.model.manifest import Manifest

    if settings.model is None:
        return Finding("model", "poor", "no model is chosen", "name one with --model or in config.toml")
    _name, ref = checkpoint_ref(settings.model, models_dir=home() / "models")
    try:
        manifest = Manifest.beside(open_checkpoint(ref))
    except CorollaError as error:
        return Finding("model", "bad", str(error), "get the model's checkpoint, with its corolla.manifest.json")
    return manifest.root, manifest.num_blocks
