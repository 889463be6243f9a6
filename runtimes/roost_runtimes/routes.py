"""Which paths a replica answers, and with what method. Everything else is 404; a wrong method is 405."""

from enum import Enum
from urllib.parse import unquote

from roost_runtimes.errors import RequestError

_MAX_PATH = 8192


class Action(Enum):
    """What a path asks for."""

    INFER = "infer"
    PREDICT = "predict"
    LIVE = "live"
    READY = "ready"
    SERVER = "server"
    MODEL = "model"
    MODEL_READY = "model_ready"
    V1_MODEL = "v1_model"
    V1_MODELS = "v1_models"
    METRICS = "metrics"
    ACTIVITY = "activity"


_POSTED = frozenset({Action.INFER, Action.PREDICT})
OPEN = frozenset({Action.LIVE, Action.READY})
"""What may be asked without the service's secret: probes carry none."""


class Routes:
    """The paths of one model. Lookups of plain paths cost one dictionary access."""

    def __init__(self, name: str, version: str) -> None:
        v1 = f"/v1/models/{name}"
        self._paths = {
            f"{v1}:predict": Action.PREDICT,
            f"{v1}/versions/{version}:predict": Action.PREDICT,
            v1: Action.V1_MODEL,
            "/v1/models": Action.V1_MODELS,
            "/v2": Action.SERVER,
            "/v2/health/live": Action.LIVE,
            "/v2/health/ready": Action.READY,
            "/metrics": Action.METRICS,
            "/roost/activity": Action.ACTIVITY,
        }
        for model in (f"/v2/models/{name}", f"/v2/models/{name}/versions/{version}"):
            self._paths |= {
                f"{model}/infer": Action.INFER,
                model: Action.MODEL,
                f"{model}/ready": Action.MODEL_READY,
            }

    def find(self, method: str, path: str) -> Action:
        """The action behind this path, percent-encoded as it came. Raises RequestError: 404, 405 or 414."""
        action = self._paths.get(path)
        if action is None:
            action = self._find_encoded(path)
        allowed = "POST" if action in _POSTED else "GET"
        if method != allowed:
            raise RequestError(
                f"this path takes {allowed}, not {method[:16]}",
                status=405,
                code="method_not_allowed",
                headers=(("allow", allowed),),
            )
        return action

    def _find_encoded(self, path: str) -> Action:
        if len(path) > _MAX_PATH:
            raise RequestError("the path is too long", status=414, code="path_too_long")
        path = path.partition("?")[0]
        # Decoded once, and an encoded slash stays one: a second reading is how traversals get past checks.
        action = None if "%2f" in path.lower() else self._paths.get(unquote(path))
        if action is None:
            raise RequestError("there is no such path or model here", status=404, code="not_found")
        return action
