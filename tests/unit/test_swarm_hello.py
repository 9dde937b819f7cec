"""The hello: whom it convinces, and that nothing relayed, replayed or reflected convinces anyone."""

from __future__ import annotations

import pytest
from swarm_peers import new_signer

from corolla_core.protocol.errors import MalformedMessage, PeerMisbehaved
from corolla_core.protocol.ids import Hash32, address_bytes
from corolla_core.protocol.signature import Signer
from corolla_core.swarm.frame import encode
from corolla_core.swarm.hello import Claim, ClientHello, Greeting, Proof, ServerHello, decode_hello

CERT = Hash32(b"c" * 32)
OTHER_CERT = Hash32(b"d" * 32)


def pair(
    *, client_binding: Hash32 = CERT, server_binding: Hash32 = CERT, expected: Signer | None = None
) -> tuple[Signer, ClientHello, Signer, ServerHello]:
    client, server = new_signer(), new_signer()
    dialer = ClientHello(client, binding=client_binding, expected=(expected or server).address)
    return client, dialer, server, ServerHello(server, binding=server_binding)


def test_both_sides_learn_who_the_other_is() -> None:
    client, dialer, server, listener = pair()
    assert dialer.start() is None
    claim, nobody = dialer.receive(listener.start())
    assert nobody is None
    proof, seen_by_server = listener.receive(claim)
    assert seen_by_server == client.address
    assert dialer.receive(proof) == (None, server.address)


def test_a_relay_that_ends_tls_itself_convinces_nobody() -> None:
    # The dialer talks to the relay's certificate, the relay to the real server's.
    _client, dialer, _server, listener = pair(client_binding=OTHER_CERT)
    claim, _ = dialer.receive(listener.start())
    with pytest.raises(PeerMisbehaved):
        listener.receive(claim)


def test_a_server_proof_for_another_certificate_is_refused() -> None:
    client, dialer, server, _listener = pair()
    relayed = ServerHello(server, binding=OTHER_CERT)
    greeting = relayed.start()
    dialer.receive(greeting)
    honest_claim, _ = ClientHello(client, binding=OTHER_CERT, expected=server.address).receive(greeting)
    proof, _ = relayed.receive(honest_claim)
    with pytest.raises(PeerMisbehaved):
        dialer.receive(proof)


def test_a_replayed_claim_meets_another_nonce() -> None:
    _client, dialer, server, listener = pair()
    claim, _ = dialer.receive(listener.start())
    listener.receive(claim)
    with pytest.raises(PeerMisbehaved):
        ServerHello(server, binding=CERT).receive(claim)


def test_a_replayed_proof_meets_another_nonce() -> None:
    client, dialer, server, listener = pair()
    greeting = listener.start()
    claim, _ = dialer.receive(greeting)
    proof, _ = listener.receive(claim)
    again = ClientHello(client, binding=CERT, expected=server.address)
    again.receive(greeting)
    with pytest.raises(PeerMisbehaved):
        again.receive(proof)


def test_a_claim_reflected_as_proof_is_refused() -> None:
    # A server that is expected to be the dialer's own account could otherwise give back the dialer's signature.
    me = new_signer()
    dialer = ClientHello(me, binding=CERT, expected=me.address)
    claim, _ = dialer.receive(Greeting(1, bytes(32)))
    assert claim is not None
    with pytest.raises(PeerMisbehaved):
        dialer.receive(Proof(claim.account, claim.signature))


def test_another_account_than_the_expected_one_is_refused() -> None:
    _client, dialer, _server, listener = pair(expected=new_signer())
    claim, _ = dialer.receive(listener.start())
    proof, _ = listener.receive(claim)
    with pytest.raises(PeerMisbehaved):
        dialer.receive(proof)


def test_claiming_an_account_one_cannot_sign_for_is_refused() -> None:
    _client, dialer, _server, listener = pair()
    claim, _ = dialer.receive(listener.start())
    assert claim is not None
    with pytest.raises(PeerMisbehaved):
        listener.receive(Claim(claim.version, claim.nonce, address_bytes(new_signer().address), claim.signature))


def test_a_signature_of_garbage_is_a_typed_refusal() -> None:
    _client, _dialer, _server, listener = pair()
    listener.start()
    with pytest.raises(PeerMisbehaved):
        listener.receive(Claim(1, bytes(32), bytes(20), bytes(65)))


def test_another_version_is_refused_by_both_sides() -> None:
    _client, dialer, _server, listener = pair()
    with pytest.raises(PeerMisbehaved):
        dialer.receive(Greeting(2, bytes(32)))
    with pytest.raises(PeerMisbehaved):
        listener.receive(Claim(2, bytes(32), bytes(20), bytes(65)))


def test_hello_out_of_order_is_refused() -> None:
    _client, dialer, _server, listener = pair()
    with pytest.raises(PeerMisbehaved):
        dialer.receive(Proof(bytes(20), bytes(65)))
    with pytest.raises(PeerMisbehaved):
        listener.receive(listener.start())
    dialer.receive(listener.start())
    with pytest.raises(PeerMisbehaved):
        dialer.receive(listener.start())


def test_a_hello_that_does_not_parse_is_malformed() -> None:
    header = b"".join(encode(Greeting(1, bytes(32))))[8:]
    assert decode_hello(memoryview(header)) == Greeting(1, bytes(32))
    for broken in (b"", header[:-1], header + b"x", b"\xff" * 40, b"\x91\xa2\x8b\x8b"):
        with pytest.raises(MalformedMessage):
            decode_hello(memoryview(broken))
