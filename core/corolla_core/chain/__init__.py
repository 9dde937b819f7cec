"""Chain adapter: contracts, keys, transactions and events. Import from its modules: the package loads none of them."""
