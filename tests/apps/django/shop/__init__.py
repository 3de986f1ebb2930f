"""A small shop: admin, login, sessions, a database, uploads, streams."""
