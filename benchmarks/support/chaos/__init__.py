"""A deployment whose parts die at random, customers who know what they are owed, and the verdict."""
