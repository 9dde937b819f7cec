"""Whatever an announcement makes of a dial, the client learns of it as an error about that node."""

from __future__ import annotations

import pytest

from corolla.links import Link, LinkHandler, Links
from corolla_core.protocol.errors import PeerMisbehaved
from corolla_core.protocol.ids import address_bytes
from corolla_core.protocol.signature import Signer
from corolla_core.swarm.messages import Endpoint

pytestmark = pytest.mark.anyio
NODE = Signer(b"\x07" * 32).address


@pytest.mark.parametrize("error", [UnicodeError("label too long"), ValueError("embedded null"), OSError("no route")])
async def test_an_address_that_cannot_be_dialed_is_held_against_the_node(error: Exception) -> None:
    async def dial(endpoint: Endpoint, /, *, handler: LinkHandler) -> Link:
        raise error

    links = Links(dial)
    with pytest.raises(PeerMisbehaved) as caught:
        await links.connect(Endpoint(address_bytes(NODE), "a" * 64, 1, bytes(32), ""))
    assert caught.value.data["peer"] == NODE
