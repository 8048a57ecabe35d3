"""Model file formats: read into a Network, write out of one."""
