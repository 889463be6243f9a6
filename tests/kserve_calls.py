"""Runs in an environment that has kserve: calls a server as KServe's own client does, and prints what came as JSON.

Arguments: base URL with the tenant's prefix, key, model with input x FP32[N, 4].
"""

import asyncio
import json
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig


async def main(base_url: str, key: str, model: str) -> dict[str, object]:
    headers = {"Authorization": f"Bearer {key}"}
    seen: dict[str, object] = {}
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        seen["server live"] = await client.is_server_live(base_url, headers=headers)
        seen["server ready"] = await client.is_server_ready(base_url, headers=headers)
        seen["model ready"] = await client.is_model_ready(base_url, model, headers=headers)
        for name, binary in (("json", False), ("binary", True)):
            tensor = InferInput("x", [1, 4], "FP32")
            tensor.set_data_from_numpy(np.array([[1, 2, 3, 4]], np.float32), binary_data=binary)
            request = InferRequest(model_name=model, infer_inputs=[tensor], request_id=name)
            answer = await client.infer(base_url, request, model_name=model, headers=dict(headers))
            seen[name] = [answer.id, answer.model_name, answer.outputs[0].as_numpy().tolist()]
        try:
            await client.infer(base_url, {"inputs": []}, model_name=model, headers=headers)
        except httpx.HTTPStatusError as error:
            seen["error"] = [error.response.status_code, str(error)]
        try:
            seen["absent ready"] = await client.is_model_ready(base_url, "absent", headers=headers)
        except httpx.HTTPStatusError as error:
            seen["absent ready"] = error.response.status_code
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
        seen["v1 live"] = await client.is_server_live(base_url, headers=headers)
        seen["v1 model ready"] = await client.is_model_ready(base_url, model, headers=headers)
        seen["v1"] = await client.infer(base_url, {"instances": [[1, 2, 3, 4]]}, model_name=model, headers=headers)
    return seen


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
