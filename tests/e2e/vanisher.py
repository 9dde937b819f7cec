"""A client in a process of its own, so that it can be killed in mid-sentence."""

from __future__ import annotations

import os
import sys
import textwrap

from corolla.devnet.devnet import Devnet, Funded
from corolla.devnet.process import Child


def vanisher(devnet: Devnet, account: Funded) -> Child:
    """It deposits, asks for a long story, and prints `{"tokens": n}` as that comes."""
    code = f"""
    import asyncio
    from pathlib import Path
    from corolla import AsyncClient, SamplingParams, load_account
    from corolla_core.chain.network import Network
    from corolla_core.protocol.units import ONE_NECTAR

    async def main():
        signer = load_account(Path({str(account.keystore)!r}), {devnet.password!r})
        network = Network.load(Path({str(devnet.network_file)!r}))
        async with AsyncClient(
            network=network, model={devnet.plan.model!r}, signer=signer, home_dir=Path({str(devnet.folder)!r}) / "gone"
        ) as client:
            await client.deposit(ONE_NECTAR)
            count = 0
            async for piece in client.stream("Once upon a time", SamplingParams(max_tokens=400)):
                count += len(piece.token_ids)
                print('{{"tokens": %d}}' % count, flush=True)

    asyncio.run(main())
    """
    return Child.start("vanisher", [sys.executable, "-c", textwrap.dedent(code)], folder=devnet.folder, env=os.environ)
