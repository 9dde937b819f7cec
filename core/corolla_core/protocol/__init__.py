"""The pure protocol: no torch, web3, hivemind, SQL or HTTP below this line."""
