"""The Open Inference Protocol v2 over REST: infer requests to arrays, arrays to infer answers, JSON and binary.

A body is a JSON object, followed by raw tensors when the header `Inference-Header-Content-Length` says where it ends. All
lengths count the body after Content-Encoding was undone. Beyond the protocol's own text:

- NaN and infinities in outputs are null in JSON, which has no word for them; binary output carries them as they are.
- FP16 travels as binary only; BYTES is text in UTF-8, since it becomes an ONNX string.
- A header value of 0 is a raw request: the body is the one input's data. One unknown dimension is inferred from its length;
  for BYTES the whole body is one element. Outputs are then binary unless the model's output is asked for otherwise.
- `classification` and `shared_memory_*` parameters are refused, all others are ignored.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, TypeVar

import orjson

from roost_runtimes.answers import Encoded, Writer
from roost_runtimes.datatypes import Kind
from roost_runtimes.errors import RequestError
from roost_runtimes.forms import MOST_BYTES as MOST_FORM_BYTES
from roost_runtimes.forms import MOST_ID, Form, Forms
from roost_runtimes.long_lists import LEAST_BYTES, MOST_BYTES, cut
from roost_runtimes.model import Array, Model, TensorSpec
from roost_runtimes.tensors import Buffer, Input, check_shape, from_binary, from_json, text

Named = TypeVar("Named")

_MAX_KEY = 1024
_MAX_PARAMETERS = 64
_MAX_PARAMETER_TEXT = 4096


class Call:
    """One decoded request: what to feed, what to ask for, and how to write the answer."""

    __slots__ = ("batch_key", "encode", "feeds", "outputs", "rows")

    def __init__(
        self,
        feeds: dict[str, Array],
        outputs: tuple[str, ...] | None,
        rows: int,
        encode: Callable[[Sequence[Array]], Encoded],
    ) -> None:
        self.feeds = feeds
        self.outputs = outputs
        """Names of the outputs to compute; None = all."""
        self.rows = rows
        """Dimension 0 of the first input, or 1."""
        self.encode = encode
        self.batch_key: object = None
        """Requests with equal keys may share one run; None = alone."""


def rows_of(feeds: Mapping[str, Array]) -> int:
    first = next(iter(feeds.values()), None)
    return first.shape[0] if first is not None and first.ndim else 1


def parse_object(raw: Buffer) -> dict[str, Any]:
    """The JSON object in `raw`; RequestError when it is anything else, MemoryError when there is no room to read it."""
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if "Not enough memory" in error.msg:
            raise MemoryError from None
        raise RequestError(f"the body is not valid JSON: {error}", code="invalid_json") from None
    if type(document) is not dict:
        raise RequestError("the body must be a JSON object", code="invalid_json")
    return document


def refuse_duplicate_keys(raw: Buffer, keys: int) -> None:
    """Refuse a document in which an object names a key twice: orjson keeps the last, another reader might the first.

    `keys` is how many keys the caller found in the objects it knows. Every key brings a colon, so when the text has no
    more colons than that, no key can have been dropped. Otherwise (a colon in a string, an object that the caller did not
    look into) the slower parser of the standard library looks at every pair.
    """
    if bytes(raw).count(b":") <= keys:
        return

    def check(pairs: list[tuple[str, Any]]) -> None:
        if len({key for key, _ in pairs}) != len(pairs):
            raise RequestError("an object in the body names the same key twice", code="invalid_json")

    try:
        json.loads(bytes(raw), object_pairs_hook=check, parse_int=float)
    except RecursionError:
        raise RequestError("the body is nested too deeply", code="invalid_json") from None


class InferCodec:
    """Decodes and encodes for one model."""

    def __init__(self, model: Model) -> None:
        self._inputs = {spec.name: Input(spec) for spec in model.inputs}
        self._outputs = {spec.name: spec for spec in model.outputs}
        self._json_refusal = next((s.name for s in model.outputs if s.datatype == "FP16"), None)
        self._head = {"model_name": model.name, "model_version": model.version}
        self._all_json = Writer(self._head, [(spec, False) for spec in model.outputs])
        self._all_binary = Writer(self._head, [(spec, True) for spec in model.outputs])
        self._forms = Forms()

    def decode(self, body: Buffer, header_length: str | None) -> Call:
        """The call that this body asks for. `header_length` is the header's value as sent, None when it is absent."""
        if header_length is None:
            if type(body) is bytes and len(body) <= MOST_FORM_BYTES:
                return self._decode_short(body)
            return self._decode_text(body, None)
        split = _header_length(header_length, len(body))
        view = memoryview(body)
        return self._decode_text(view[:split], view[split:]) if split else self._decode_raw(view)

    def _decode_short(self, body: bytes) -> Call:
        """What was checked before in another request like this one is not checked again."""
        known = self._forms.find(body)
        if known is not None:
            form, array, request_id = known
            writer = form.writer if request_id is None else form.writer.with_id(request_id)
            return Call({form.spec.name: array}, form.outputs, form.rows, writer)
        document = parse_object(body)
        feeds, outputs, writer = self._read(document, body, None)
        rows = rows_of(feeds)
        if len(feeds) == 1 and self._forms.may_learn(body):
            ((name, array),) = feeds.items()
            form = Form(self._inputs[name], array.shape, array.size, rows, outputs, writer)
            self._forms.learn(body, form, document.get("id"))
        return Call(feeds, outputs, rows, writer)

    def _decode_text(self, raw: Buffer, tail: memoryview | None) -> Call:
        if LEAST_BYTES <= len(raw) <= MOST_BYTES:
            call = self._decode_long(bytes(raw), tail)
            if call is not None:
                return call
        return self._decode_document(parse_object(raw), raw, tail)

    def _decode_long(self, raw: bytes, tail: memoryview | None) -> Call | None:
        """The call when its lists of numbers could be read apart from the rest; None = it must be read as a whole."""
        parts = cut(raw)
        if parts is None:
            return None
        rest, lists = parts
        try:
            document = parse_object(rest)
            holes = _holes(document.get("inputs"))
            # Fewer when something else was called `data` too. There are no other nulls, so that as many are the same ones.
            if len(holes) != len(lists):
                return None
            for item, numbers in zip(holes, lists, strict=True):
                item["data"] = numbers
            return self._decode_document(document, rest, tail)
        except RequestError:
            return None

    def _decode_document(self, document: dict[str, Any], raw: Buffer, tail: memoryview | None) -> Call:
        feeds, outputs, writer = self._read(document, raw, tail)
        return Call(feeds, outputs, rows_of(feeds), writer)

    def _read(
        self, document: dict[str, Any], raw: Buffer, tail: memoryview | None
    ) -> tuple[dict[str, Array], tuple[str, ...] | None, Writer]:
        """Arrays, names of the outputs wanted (None = all), and what writes them, of this document, whose text is `raw`."""
        request_id = document.get("id")
        if request_id is not None and (type(request_id) is not str or len(request_id) > MOST_ID):
            raise RequestError(f"expected a string of at most {MOST_ID} characters as id", field="id")
        parameters = document.get("parameters")
        keys = len(document)
        all_binary = False
        if parameters is not None:
            keys += len(_check_parameters(parameters, "parameters"))
            all_binary = _flag(parameters, "binary_data_output", "parameters") or False
        feeds, input_keys = self._decode_inputs(document.get("inputs"), tail)
        outputs = document.get("outputs")
        if not outputs and (outputs is None or type(outputs) is list):
            names, writer = None, self._all_binary if all_binary else self._all_json
            keys += input_keys
            if self._json_refusal is not None and not all_binary:
                raise _fp16_as_json(self._json_refusal)
        else:
            names, wanted, output_keys = self._decode_outputs(outputs, all_binary)
            writer = Writer(self._head, wanted)
            keys += input_keys + output_keys
        refuse_duplicate_keys(raw, keys)
        return feeds, names, writer if request_id is None else writer.with_id(request_id)

    def _decode_inputs(self, inputs: Any, tail: memoryview | None) -> tuple[dict[str, Array], int]:
        """Arrays by name, and the number of keys in the objects read."""
        if type(inputs) is not list:
            raise RequestError("expected a list of input tensors", field="inputs")
        feeds: dict[str, Array] = {}
        known, keys, position = self._inputs, 0, 0
        for index, item in enumerate(inputs):
            spec = _named(item, known, feeds, "inputs", index)
            datatype = item.get("datatype")
            if datatype != spec.datatype.name:
                raise RequestError(
                    f"input {spec.name!r} expects datatype {spec.datatype.name}, got {_word(datatype)}",
                    field=f"inputs[{index}].datatype",
                )
            shape = item.get("shape")
            count = check_shape(spec, shape, f"inputs[{index}].shape")
            parameters = item.get("parameters")
            keys += len(item)
            if parameters is not None:
                keys += len(_check_parameters(parameters, f"inputs[{index}].parameters"))
                if "binary_data_size" in parameters:
                    raw = _slice(item, parameters, tail, position, index)
                    position += len(raw)
                    feeds[spec.name] = from_binary(spec, shape, count, raw, f"inputs[{index}]")
                    continue
            feeds[spec.name] = from_json(spec, shape, count, item.get("data"), f"inputs[{index}].data")
        if len(feeds) != len(known):
            missing = ", ".join(repr(name) for name in known if name not in feeds)
            raise RequestError(f"the model also needs input {missing}", field="inputs")
        if tail is not None and position != len(tail):
            raise RequestError(
                f"{len(tail) - position} bytes follow the last binary tensor", field="inference-header-content-length"
            )
        return feeds, keys

    def _decode_outputs(
        self, outputs: Any, all_binary: bool
    ) -> tuple[tuple[str, ...], tuple[tuple[TensorSpec, bool], ...], int]:
        if type(outputs) is not list:
            raise RequestError("expected a list of requested outputs", field="outputs")
        wanted: dict[str, tuple[TensorSpec, bool]] = {}
        keys = 0
        for index, item in enumerate(outputs):
            spec = _named(item, self._outputs, wanted, "outputs", index)
            parameters = item.get("parameters")
            binary = all_binary
            keys += len(item)
            if parameters is not None:
                field = f"outputs[{index}].parameters"
                keys += len(_check_parameters(parameters, field))
                flag = _flag(parameters, "binary_data", field)
                binary = all_binary if flag is None else flag
            if not binary and spec.datatype == "FP16":
                raise _fp16_as_json(spec.name)
            wanted[spec.name] = (spec, binary)
        return tuple(wanted), tuple(wanted.values()), keys

    def _decode_raw(self, body: memoryview) -> Call:
        """A raw request: the whole body is the data of the only input."""
        field = "inference-header-content-length"
        if len(self._inputs) != 1:
            raise RequestError("a raw request needs a model with one input", field=field)
        spec = next(iter(self._inputs.values()))
        shape = list(spec.shape)
        if spec.datatype.kind is Kind.TEXT:
            if any(dim not in (-1, 1) for dim in shape):
                raise RequestError("a raw request holds one BYTES element; this model takes more", field=field)
            array = from_json(spec, [1] * len(shape), 1, [text(spec, body, field)], field)
        else:
            unknown = shape.count(-1)
            known = prod(dim for dim in shape if dim != -1) * spec.datatype.size
            if unknown > 1 or (unknown == 1 and (known == 0 or len(body) % known)):
                raise RequestError(
                    f"the shape {shape} of input {spec.name!r} cannot be inferred from {len(body)} bytes", field=field
                )
            if unknown:
                shape[shape.index(-1)] = len(body) // known
            array = from_binary(spec, shape, prod(shape), body, field)
        feeds = {spec.name: array}
        return Call(feeds, None, rows_of(feeds), self._all_binary)


def _holes(inputs: Any) -> list[dict[str, Any]]:
    """The inputs whose data is null."""
    if type(inputs) is not list:
        return []
    return [item for item in inputs if type(item) is dict and item.get("data", 0) is None]


def _header_length(value: str, size: int) -> int:
    field = "inference-header-content-length"
    # Digits alone: int() would take signs, spaces, underscores and other alphabets' digits.
    if not (value.isascii() and value.isdigit() and len(value) < 20):
        raise RequestError(f"expected a number of bytes as {field}", field=field)
    length = int(value)
    if length > size:
        raise RequestError(f"{field} is {length}, but the body has {size} bytes", field=field)
    return length


def _slice(
    item: Mapping[str, Any], parameters: Mapping[str, Any], tail: memoryview | None, position: int, index: int
) -> memoryview:
    field = f"inputs[{index}].parameters.binary_data_size"
    size = parameters["binary_data_size"]
    if type(size) is not int or size < 0:
        raise RequestError("expected a number of bytes as binary_data_size", field=field)
    if "data" in item:
        raise RequestError("an input has either data or binary_data_size, not both", field=f"inputs[{index}]")
    if tail is None:
        raise RequestError("binary data needs the header Inference-Header-Content-Length", field=field)
    if position + size > len(tail):
        raise RequestError(f"binary_data_size is {size}, but {len(tail) - position} bytes are left", field=field)
    return tail[position : position + size]


def _named(item: Any, known: Mapping[str, Named], seen: Mapping[str, Any], role: str, index: int) -> Named:
    """The signature's entry for this tensor object; refuses unknown and repeated names."""
    if type(item) is not dict:
        raise RequestError("expected a tensor object", field=f"{role}[{index}]")
    name = item.get("name")
    if type(name) is not str:
        raise RequestError("expected the tensor's name, a string", field=f"{role}[{index}].name")
    entry = known.get(name)
    field = f"{role}[{index}].name"
    if entry is None:
        names = ", ".join(repr(one) for one in known)
        raise RequestError(f"the model has no {role[:-1]} {_word(name)}; it has {names}", field=field)
    if name in seen:
        raise RequestError(f"{role[:-1]} {name!r} is given twice", field=field)
    return entry


def _check_parameters(parameters: Any, field: str) -> dict[str, Any]:
    if type(parameters) is not dict:
        raise RequestError("expected an object of parameters", field=field)
    if len(parameters) > _MAX_PARAMETERS:
        raise RequestError(f"more than {_MAX_PARAMETERS} parameters", field=field)
    for key, value in parameters.items():
        if len(key) > _MAX_KEY or (type(value) is str and len(value) > _MAX_PARAMETER_TEXT):
            raise RequestError(f"a parameter is at most {_MAX_PARAMETER_TEXT} characters", field=field)
        if key == "classification" or key.startswith("shared_memory_"):
            raise RequestError(f"the parameter {key[:64]!r} is not supported", field=field, code="unsupported")
    return parameters


def _flag(parameters: Mapping[str, Any], key: str, field: str) -> bool | None:
    value = parameters.get(key)
    if value is not None and type(value) is not bool:
        raise RequestError(f"expected true or false as {key}", field=f"{field}.{key}")
    return value


def _fp16_as_json(name: str) -> RequestError:
    return RequestError(f"output {name!r} is FP16: ask for it as binary data", field="outputs")


def _word(value: Any) -> str:
    """A client's word inside an error message: short, and only if it was one."""
    return repr(value[:64]) if type(value) is str else "none" if value is None else "something that is not a string"
