"""Whatever a node says to a client, at any moment: no crash, no hang, a typed error, and the next session is served."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from client_world import ClientWorld, client_world, fast_policy, greedy_ids, make_checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from test_fuzz_messages import ALL_MESSAGES, plain_values, values_of

from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.sampling import SamplingParams
from corolla_core.protocol import errors
from corolla_core.protocol.errors import CorollaError
from corolla_core.protocol.span import Span
from corolla_core.swarm.frame import payload_bytes
from corolla_core.swarm.messages import Fault

NODES = {"a": Span(0, 3), "b": Span(3, 6), "a2": Span(0, 3), "b2": Span(3, 6)}
PROMPT, TOKENS = "Once", 5
CODES = sorted(
    {kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, CorollaError)}
)


@dataclass(frozen=True)
class Lie:
    """`message` comes from node `teller` before its honest message number `moment`, and instead of it if `instead`.

    `mine`: it names the session that the node serves; `step`: and the step it was asked for.
    """

    teller: str
    moment: int
    message: Any
    payload: bytes
    instead: bool
    mine: bool
    step: bool


@st.composite
def faults(draw: st.DrawFn) -> Fault:
    """A known error whose data are anything, of the names that decisions look at."""
    names = st.sampled_from(["owed", "offered", "known", "peer", "expected", "needed", "free", "limit", "session_id"])
    number = st.integers(-(2**255), 2**255).map(lambda value: {"int": str(value)})
    data = draw(st.dictionaries(names, number | plain_values(), max_size=6))
    fault = draw(values_of(msgspec.inspect.type_info(Fault)))
    return replace(fault, error={"code": draw(st.sampled_from(CODES)), "message": draw(st.text()), "data": data})


@st.composite
def lies(draw: st.DrawFn) -> Lie:
    kind = msgspec.inspect.type_info(draw(st.sampled_from(ALL_MESSAGES)))
    message = draw(faults() | values_of(kind))
    size = payload_bytes(message)
    return Lie(
        teller=draw(st.sampled_from(["a", "b"])),
        moment=draw(st.integers(0, 12)),
        message=message,
        payload=draw(st.binary(min_size=size, max_size=size)),
        instead=draw(st.booleans()),
        mine=draw(st.booleans()),
        step=draw(st.booleans()),
    )


def plant(world: ClientWorld, told: list[Lie]) -> None:
    """Have the nodes tell their lies in the first session they serve."""
    for name in ("a", "b"):
        _make_liar(world.nodes[name], [lie for lie in told if lie.teller == name])


def _make_liar(node: Any, told: list[Lie]) -> None:
    honest, seen, conns, victim = node.server.on_message, 0, set[int](), list[bytes]()

    def on_message(conn: Any, message: Any, payload: memoryview) -> None:
        if id(conn) not in conns:
            conns.add(id(conn))
            send = conn.send

            def lie(outgoing: Any, data: Any = None) -> None:
                nonlocal seen
                session = getattr(outgoing, "session", None)
                if session is not None and not victim:
                    victim.append(session)
                if session is None or session != victim[0]:
                    send(outgoing, data)
                    return
                due, seen = [each for each in told if each.moment == seen], seen + 1
                for each in due:
                    send(_aimed(each, outgoing), each.payload)
                if not any(each.instead for each in due):
                    send(outgoing, data)

            conn.send = lie
        honest(conn, message, payload)

    node.server.on_message = on_message


def _aimed(lie: Lie, outgoing: Any) -> Any:
    changes = {}
    if lie.mine and getattr(lie.message, "session", None) is not None:
        changes["session"] = outgoing.session
    if lie.step and isinstance(getattr(lie.message, "step", None), int) and hasattr(outgoing, "step"):
        changes["step"] = outgoing.step
    return replace(lie.message, **changes)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return make_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def undisturbed(checkpoint: Checkpoint) -> tuple[int, ...]:
    return greedy_ids(checkpoint, list(checkpoint.tokenizer()(PROMPT).input_ids), TOKENS)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(told=st.lists(lies(), min_size=1, max_size=4))
def test_a_client_survives_whatever_nodes_say(
    checkpoint: Checkpoint, undisturbed: tuple[int, ...], told: list[Lie]
) -> None:
    async def scene(folder: Path) -> None:
        loop, unexpected = asyncio.get_running_loop(), list[dict[str, Any]]()
        loop.set_exception_handler(lambda _loop, context: unexpected.append(context))
        policy = {"patience": 0.3, "answer": 0.3, "step": 0.3, "step_per_token": 0.05, "connect": 0.5}
        async with client_world(checkpoint, folder, NODES, policy=fast_policy(**policy)) as world:
            for name in ("a", "b"):
                world.directory.throughput[world.nodes[name].account] = 1_000_000
            plant(world, told)
            params = SamplingParams(max_tokens=TOKENS)
            async with asyncio.timeout(30):
                with contextlib.suppress(CorollaError):  # typed: nobody could do the work
                    await world.engine.stream(PROMPT, params).read()
                world.peers._shunned.clear()
                following = await world.engine.stream(PROMPT, params).read()
            assert following.token_ids == undisturbed
            assert world.wallet.reserved == 0
        assert not unexpected

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scene(Path(folder)))
