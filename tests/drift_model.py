"""A real classifier: a random forest that scikit-learn trained on Fisher's irises, as ONNX; and irises like its own."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

SEED = 20261123


@cache
def _iris() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_iris

    found = load_iris()
    return found.data.astype(np.float32), found.target


def make(path: Path) -> Path:
    """`X` f32 [N,4] to `label` i64 [N] and `probabilities` f32 [N,3]."""
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestClassifier

    data, target = _iris()
    forest = RandomForestClassifier(8, max_depth=4, random_state=SEED).fit(data, target)
    made = to_onnx(forest, data[:1], options={"zipmap": False}, target_opset=17)
    path.write_bytes(made.SerializeToString())
    return path


def resampled(random: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Irises drawn with replacement, and their kinds."""
    data, target = _iris()
    rows = random.integers(0, len(data), size)
    return data[rows], target[rows]


def request(name: str, rows: np.ndarray) -> dict[str, Any]:
    values = [float(value) for value in rows.ravel()]
    return {"inputs": [{"name": name, "datatype": "FP32", "shape": list(rows.shape), "data": values}]}
