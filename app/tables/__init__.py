"""SQLAlchemy tables, one file each."""
