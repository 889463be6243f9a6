import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Child processes (the zygote among them) find the models that tests make.
os.environ["PYTHONPATH"] = str(Path(__file__).parent)

# How fast this machine makes examples says nothing about Roost.
settings.register_profile("roost", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("roost")

# Files that take a minute or more. They come first, so that the processes that share the suite end at the same time.
LONG = (
    "test_server_kill.py",
    "test_fuzz_models.py",
    "test_engines_contract.py",
    "test_campaign_restart.py",
    "test_fuzz_api.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


pytest_plugins = ["s3_parts", "databases"]
