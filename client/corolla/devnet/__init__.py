"""A whole network on one machine: chain, contracts, model, discovery and paid nodes, each a process of its own."""
