"""ONNX Runtime's exceptions in words that may be shown: no path, no source line, and a code of ours."""

import re

from roost_runtimes.check_verdict import Rejected

_LONGEST = 400
_NO_MEMORY = ("bad_alloc", "bad allocation", "Failed to allocate memory", "Unable to allocate", "length_error")
_SOURCE = re.compile(r"\S+\.(?:cc|h|hpp|cpp|inc):\d+ ")
_PATH = re.compile(r"(?:/[\w.+-]+){2,}(?::\d+)?")
_NAME = re.compile(r"\S*::\S*")
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : (\w+) : ")
_LOAD = re.compile(r"Load model from \S+ failed:")
_OPSET = re.compile(r"current official support for domain (\S+) is till opset (\d+)")


def ran_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY)


def out_of_memory(doing: str) -> Rejected:
    return Rejected("out_of_memory", f"{doing} takes more memory than is allowed")


def rejection_of(error: Exception) -> Rejected:
    """Why ONNX Runtime would not open a model."""
    text = str(error)
    if ran_out_of_memory(error):
        return out_of_memory("loading the model")
    if "Unsupported model IR version" in text:
        newest = text.rpartition(" ")[2].strip()
        return Rejected("unsupported_ir", f"the IR version is too new; the newest is {newest}", field="ir_version")
    if match := _OPSET.search(text):
        domain, newest = match[1], match[2].rstrip(".")
        return Rejected(
            "unsupported_opset", f"the opset of {domain} is too new; the newest is {newest}", field="opset_import"
        )
    code = "unsupported_operator" if "NOT_IMPLEMENTED" in text or "No Op registered" in text else "load_failed"
    return Rejected(code, f"ONNX Runtime cannot load the model: {cleaned(text)}")


def cleaned(text: str) -> str:
    """The sentence inside an ONNX Runtime message."""
    text = _LOAD.sub("", _PREFIX.sub("", text))
    while match := _SOURCE.search(text):
        text = text[: match.start()] + _after_function(text[match.end() :])
    text = " ".join(_NAME.sub("", _PATH.sub("…", text)).split())
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _after_function(text: str) -> str:
    """What follows a C++ function's name and its parameters, whose parentheses nest."""
    if "::" not in text.partition("(")[0]:
        return text.partition(" ")[2]  # a bare name
    depth = 0
    for index, character in enumerate(text):
        if character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
            if depth == 0:
                return text[index + 1 :].removeprefix(" const").lstrip()
    return text
