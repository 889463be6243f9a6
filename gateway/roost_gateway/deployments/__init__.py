"""From a stored version to a served one: revisions, their rollout, traffic and rollback."""
