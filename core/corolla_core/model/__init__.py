"""Model adapter: checkpoints, manifests, block ranges, KV caches and sampling."""
