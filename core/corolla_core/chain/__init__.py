"""Chain adapter: contracts, keys, transactions and events. Import from its modules: the package loads none of them."""

import importlib
import sys
from contextlib import suppress

# eth-account and web3 import py_ecc, which raises Python's recursion limit to 100,000: far beyond what the C stack
# holds. From then on a peer could end this process with a few KiB of nested msgpack or JSON. Imported here first,
# before any module of ours can import those, it is undone at once.
_limit = sys.getrecursionlimit()
with suppress(ImportError):
    importlib.import_module("py_ecc")
sys.setrecursionlimit(_limit)
