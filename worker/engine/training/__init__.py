"""Training: batches, losses, the schedule and the loop that methods share."""
