"""Store adapter: what must survive a crash, in SQL."""
