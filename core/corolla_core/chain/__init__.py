"""Chain adapter: contracts, keys, transactions and events."""
