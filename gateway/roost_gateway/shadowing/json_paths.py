"""JSON paths (RFC 9535) that a user names: what of an answer is compared.

Of the language only what cannot take long: names, places, slices and `*`, one to a bracket. A filter or `..` may look at a
document many times over, and the answers that it is applied to are a stranger's.
"""

from collections.abc import Callable
from typing import Any

from roost_platform.domain.errors import InvalidRequest

Find = Callable[[Any], list[Any]]
_ALLOWED = frozenset({"NameSelector", "IndexSelector", "SliceSelector", "WildcardSelector"})


def compile_path(path: str) -> Find:
    """What finds the values that the path names, in their order. Raises InvalidRequest, field `path`."""
    import jsonpath  # noqa: PLC0415 - a tenth of a second for what few models use

    try:
        compiled = jsonpath.JSONPathEnvironment(strict=True).compile(path)
    except Exception as error:
        # The library's own errors fail to say what they are for some texts.
        raise InvalidRequest(f"{path!r} is no JSON path like $.outputs[0].data[*]", field="path") from error
    if not isinstance(compiled, jsonpath.JSONPath) or not all(_is_plain(segment) for segment in compiled.segments):
        raise InvalidRequest("a path has names, places, slices and *, one to a bracket", field="path")
    return compiled.findall


def _is_plain(segment: Any) -> bool:
    selectors = segment.selectors
    child = type(segment).__name__ == "JSONPathChildSegment"
    return child and len(selectors) == 1 and type(selectors[0]).__name__ in _ALLOWED
