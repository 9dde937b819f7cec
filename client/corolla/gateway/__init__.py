"""An OpenAI-compatible HTTP API over a Corolla network."""
