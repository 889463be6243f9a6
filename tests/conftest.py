import os
from pathlib import Path

# Child processes (the zygote among them) find the models that tests make.
os.environ["PYTHONPATH"] = str(Path(__file__).parent)
