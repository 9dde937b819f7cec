"""What a validator knows of its network, for people to look at: `validator explorer`. Read-only."""
