"""Store adapter: what must survive a crash, in SQL."""

from corolla_core.store.client_store import ClientStore
from corolla_core.store.index_store import IndexStore
from corolla_core.store.node_store import NodeStore
from corolla_core.store.records import ClientTranche, Earnings, KeptVoucher, SessionRecord
from corolla_core.store.store import Store

__all__ = [
    "ClientStore",
    "ClientTranche",
    "Earnings",
    "IndexStore",
    "KeptVoucher",
    "NodeStore",
    "SessionRecord",
    "Store",
]
