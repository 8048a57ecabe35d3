"""HTTP concerns that belong to no noun: errors, health, catalogue."""
