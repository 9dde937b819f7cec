"""The core every Corolla actor shares: four adapters (chain, model, store, swarm) over a pure protocol."""
