"""The Corolla client SDK."""
