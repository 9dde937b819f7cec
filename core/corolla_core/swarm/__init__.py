"""Swarm adapter: who serves what (DHT), and authenticated streams between peers."""
