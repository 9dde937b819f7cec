"""Corolla's client: large language models over a network of paid machines.

    from corolla import Client, SamplingParams

Names are loaded when first used: importing the package costs nothing, using a client imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from corolla.chat import ChatSession as ChatSession
    from corolla.client import AsyncClient as AsyncClient
    from corolla.policy import Policy as Policy
    from corolla.speculation import Speculation as Speculation
    from corolla.sync import Client as Client
    from corolla.values import Balance as Balance
    from corolla.values import BeamText as BeamText
    from corolla.values import ChatMessage as ChatMessage
    from corolla.values import Generation as Generation
    from corolla.values import Piece as Piece
    from corolla.values import Usage as Usage
    from corolla.wallet import WalletPolicy as WalletPolicy
    from corolla_core.chain.keystore import create_account as create_account
    from corolla_core.chain.keystore import load_account as load_account
    from corolla_core.chain.network import Network as Network
    from corolla_core.model.sampling import SamplingParams as SamplingParams
    from corolla_core.protocol.errors import CorollaError as CorollaError
    from corolla_core.protocol.signature import Signer as Signer

_HOMES = {
    "AsyncClient": "corolla.client",
    "Balance": "corolla.values",
    "BeamText": "corolla.values",
    "ChatMessage": "corolla.values",
    "ChatSession": "corolla.chat",
    "Client": "corolla.sync",
    "CorollaError": "corolla_core.protocol.errors",
    "Generation": "corolla.values",
    "Network": "corolla_core.chain.network",
    "Piece": "corolla.values",
    "Policy": "corolla.policy",
    "SamplingParams": "corolla_core.model.sampling",
    "Signer": "corolla_core.protocol.signature",
    "Speculation": "corolla.speculation",
    "Usage": "corolla.values",
    "WalletPolicy": "corolla.wallet",
    "create_account": "corolla_core.chain.keystore",
    "load_account": "corolla_core.chain.keystore",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 -- the names above, lazily


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'corolla' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
