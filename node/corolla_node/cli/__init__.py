"""The `node` command."""
