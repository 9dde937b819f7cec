"""The miner."""
