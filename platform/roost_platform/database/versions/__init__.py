"""Migrations, oldest first; Alembic reads the files of this folder.

A migration only adds: tables, and columns that are nullable or have a default, so that gateways of the release before go on
while it runs and after it, and one may go back to them. One that cannot do that sets `schema_facts.readable_since` to its
own number: older gateways then refuse to start.
"""
