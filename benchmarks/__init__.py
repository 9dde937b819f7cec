"""What Corolla costs, measured against plain transformers on the same machine. `make bench` runs it."""
