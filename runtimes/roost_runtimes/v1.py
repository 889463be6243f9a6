"""The V1 `:predict` body: `instances` row by row, or `inputs` column by column, and answers in the same manner.

`{"instances": [row, ...]}` answers `{"predictions": [...]}`. With one input a row is its value, with several an object
by input name (which one input may use too). `{"inputs": value or object}` answers `{"outputs": value or object}`.
Shapes follow from the nesting of the lists. `signature_name` is ignored; FP16 needs V2, whose binary form carries it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from roost_runtimes.answers import JSON_HEADERS, Encoded
from roost_runtimes.codec import Call, parse_object, refuse_duplicate_keys, rows_of
from roost_runtimes.errors import RequestError
from roost_runtimes.model import Array, Model
from roost_runtimes.tensors import MAX_RANK, Buffer, Input, check_shape, from_json


class PredictCodec:
    """Decodes and encodes for one model."""

    def __init__(self, model: Model) -> None:
        self._inputs = {spec.name: Input(spec) for spec in model.inputs}
        self._outputs = [spec.name for spec in model.outputs]
        self._fp16 = next((s.name for s in (*model.inputs, *model.outputs) if s.datatype == "FP16"), None)

    def decode(self, body: Buffer) -> Call:
        if self._fp16 is not None:
            raise RequestError(f"{self._fp16!r} is FP16, which V1 cannot carry: use V2 with binary data")
        document = parse_object(body)
        by_row = "instances" in document
        if by_row == ("inputs" in document):
            raise RequestError("expected either instances or inputs")
        if by_row:
            instances = document["instances"]
            if type(instances) is not list or not instances:
                raise RequestError("expected a list of instances that is not empty", field="instances")
            columns, keys = self._columns(instances)
            role = "instances"
        else:
            columns, role = document["inputs"], "inputs"
            if type(columns) is not dict:
                columns = self._only(columns, role)
                keys = 0
            else:
                keys = len(columns)
        refuse_duplicate_keys(body, len(document) + keys)
        feeds = self._feeds(columns, role)
        if not by_row:
            return Call(feeds, None, rows_of(feeds), self._encode_columns)
        rows = len(document["instances"])
        return Call(feeds, None, rows, lambda arrays: self._encode_rows(rows, arrays))

    def _columns(self, instances: list[Any]) -> tuple[dict[str, Any], int]:
        """Rows to one list per input, and the number of keys in the rows."""
        if type(instances[0]) is not dict:
            return self._only(instances, "instances"), 0
        keys = 0
        columns: dict[str, list[Any]] = {name: [] for name in instances[0]}
        for index, instance in enumerate(instances):
            if type(instance) is not dict or instance.keys() != columns.keys():
                raise RequestError("every instance must name the same inputs", field=f"instances[{index}]")
            keys += len(instance)
            for name, value in instance.items():
                columns[name].append(value)
        return columns, keys

    def _only(self, value: Any, role: str) -> dict[str, Any]:
        if len(self._inputs) != 1:
            names = ", ".join(repr(name) for name in self._inputs)
            raise RequestError(f"the model has several inputs: name them ({names})", field=role)
        return {next(iter(self._inputs)): value}

    def _feeds(self, columns: Mapping[str, Any], role: str) -> dict[str, Array]:
        feeds: dict[str, Array] = {}
        for name, value in columns.items():
            spec = self._inputs.get(name)
            if spec is None:
                names = ", ".join(repr(one) for one in self._inputs)
                raise RequestError(f"the model has no input {name[:64]!r}; it has {names}", field=role)
            shape = _shape_of(value)
            count = check_shape(spec, shape, role)
            feeds[name] = from_json(spec, shape, count, value if shape else [value], role)
        missing = [repr(name) for name in self._inputs if name not in feeds]
        if missing:
            raise RequestError(f"the model also needs input {', '.join(missing)}", field=role)
        return feeds

    def _encode_rows(self, rows: int, arrays: Sequence[Array]) -> Encoded:
        for name, array in zip(self._outputs, arrays, strict=True):
            if not array.ndim or array.shape[0] != rows:
                raise RequestError(
                    f"output {name!r} of shape {list(array.shape)} is not one row per instance: use `inputs`, or V2",
                    field="instances",
                )
        if len(arrays) == 1:
            return _json({"predictions": _nested(arrays[0])})
        named = list(zip(self._outputs, map(_nested, arrays), strict=True))
        return _json({"predictions": [{name: column[row] for name, column in named} for row in range(rows)]})

    def _encode_columns(self, arrays: Sequence[Array]) -> Encoded:
        if len(arrays) == 1:
            return _json({"outputs": _nested(arrays[0])})
        return _json({"outputs": dict(zip(self._outputs, map(_nested, arrays), strict=True))})


def _shape_of(value: Any) -> list[int]:
    """The shape that the first elements show; `from_json` then checks all others against it."""
    shape: list[int] = []
    while type(value) is list and len(shape) <= MAX_RANK:
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return shape


def _nested(array: Array) -> Any:
    """The array as orjson can write it whole and row by row: floats stay numpy's, so that they keep their own digits."""
    if array.dtype == object or (array.ndim <= 1 and array.dtype.kind != "f"):
        return array.tolist()
    return array if array.ndim else array[()]


def _json(document: Mapping[str, Any]) -> Encoded:
    return JSON_HEADERS, [orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)]
