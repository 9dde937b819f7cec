"""A simulated Corolla: a thousand nodes, some of which cheat, with real audits, juries and money rules between them."""
