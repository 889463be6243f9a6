import os
from pathlib import Path

from hypothesis import HealthCheck, settings

# Child processes (the zygote among them) find the models that tests make.
os.environ["PYTHONPATH"] = str(Path(__file__).parent)

# How fast this machine makes examples says nothing about Roost.
settings.register_profile("roost", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("roost")

pytest_plugins = ["s3_parts", "databases"]
