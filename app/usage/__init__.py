"""What a workspace uses, and of how much."""
