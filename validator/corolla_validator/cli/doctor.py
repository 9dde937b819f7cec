"""`validator doctor`: each thing a validator needs, looked at on its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

from corolla_core.config import home, keystore_path
from corolla_core.config.checkup import examine_machine, examine_port
from corolla_core.protocol.errors import CorollaError
from corolla_core.protocol.finding import Finding
from corolla_validator.config import ValidatorSettings


async def examine(settings: ValidatorSettings, folder: Path) -> list[Finding]:
    """Every check that can be made; one that needs what an earlier one missed is left out."""
    from corolla_core.chain.checkup import examine_gas, examined_chain
    from corolla_core.chain.keystore import account_address
    from corolla_core.chain.network import resolve_network

    findings = examine_machine(folder, threads=settings.threads)
    if settings.metrics_port:
        at = (settings.metrics_host, settings.metrics_port)
        findings.append(examine_port("metrics port", *at, setting="metrics_port"))
    try:
        network = resolve_network(settings.network, folder=home() / "networks")
    except CorollaError as error:
        return [*findings, Finding("network", "bad", str(error), "give --network a file, or a name in <home>/networks")]
    findings.append(Finding("network", "good", f"{network.name}, chain {network.chain_id}"))
    async with examined_chain(network, findings) as chain:
        if settings.account is None:
            advice = "with --account it votes as a juror and publishes scores"
            findings.append(Finding("account", "poor", "it only audits, under a passing key", advice))
        elif chain is not None:
            try:
                address = account_address(keystore_path(settings.account))
            except CorollaError as error:
                findings.append(Finding("account", "bad", str(error), "make one with `corolla account new`"))
            else:
                findings += [Finding("account", "good", address), await examine_gas(chain, address)]
    from corolla_core.swarm.checkup import examine_swarm
    from corolla_validator.running import open_bench

    try:
        bench = await asyncio.to_thread(open_bench, settings)
    except CorollaError as error:
        advice = "name a model whose checkpoint is here and whose thresholds are known: `validator calibrate`"
        return [*findings, Finding("model", "bad", str(error), advice)]
    manifest = bench.manifest
    findings.append(Finding("model", "good", f"{manifest.name}, with thresholds to judge by"))
    found, _spans = await examine_swarm(network.name, network.bootstrap, manifest.root, manifest.num_blocks)
    return findings + found
