"""Store adapter: what must survive a crash, in SQL. Import from its modules: the package loads none of them."""
