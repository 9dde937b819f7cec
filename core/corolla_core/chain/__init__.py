"""Chain adapter: contracts, keys, transactions and events."""

from corolla_core.chain.account import Call
from corolla_core.chain.deploy import Terms, deploy_all
from corolla_core.chain.escrow import Escrow, Redeemed, RedeemItem, Redemption, Tranche
from corolla_core.chain.indexer import Indexed, Indexer, Update
from corolla_core.chain.keystore import account_address, create_account, load_account
from corolla_core.chain.mined import Log, Mined
from corolla_core.chain.models import Models, ModelVersion
from corolla_core.chain.network import Network, resolve_network
from corolla_core.chain.registry import NodeRecord, Registry
from corolla_core.chain.rpc import Chain, Clock
from corolla_core.chain.sender import Patience, Sent, TransactionSender
from corolla_core.chain.token import Token

__all__ = [
    "Call",
    "Chain",
    "Clock",
    "Escrow",
    "Indexed",
    "Indexer",
    "Log",
    "Mined",
    "ModelVersion",
    "Models",
    "Network",
    "NodeRecord",
    "Patience",
    "RedeemItem",
    "Redeemed",
    "Redemption",
    "Registry",
    "Sent",
    "Terms",
    "Token",
    "Tranche",
    "TransactionSender",
    "Update",
    "account_address",
    "create_account",
    "deploy_all",
    "load_account",
    "resolve_network",
]
