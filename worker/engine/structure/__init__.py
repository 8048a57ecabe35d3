"""What a network consists of: channels, heads and blocks that it still computes without."""
