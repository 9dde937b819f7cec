"""A swarm whose nodes place themselves by the product's rules, and clients that route by the product's router."""
