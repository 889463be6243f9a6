"""Migrations, oldest first; Alembic reads the files of this folder."""
