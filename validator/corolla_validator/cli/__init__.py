"""The `validator` command."""
