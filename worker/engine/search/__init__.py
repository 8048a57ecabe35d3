"""Architecture search inside an uploaded network: a supernet that shares its weights, and strategies over it."""
