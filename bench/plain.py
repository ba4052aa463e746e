"""What one writes first: FastAPI, Pillow and ``session.run`` in one function.

It does less (no HU, no statistics, no flags, no limits), so being ahead of it is not a matter
of course. FastAPI runs the function in its pool of threads.
"""

from __future__ import annotations

import io
import os

import numpy as np
import onnxruntime as ort
import uvicorn
from fastapi import FastAPI, Request, Response
from PIL import Image
from starlette.concurrency import run_in_threadpool

GRID = (256, 256)


def create() -> FastAPI:
    session = ort.InferenceSession(os.environ["MODEL_FILE"], providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    app = FastAPI()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    def predict(content: bytes) -> bytes:
        picture = Image.open(io.BytesIO(content))
        values = np.asarray(picture).astype(np.float32)
        low, high = np.percentile(values, (0.5, 99.5))
        grey = Image.fromarray(np.clip((values - low) * (255 / (high - low)), 0, 255))
        image = np.asarray(grey.resize(GRID, Image.Resampling.BILINEAR))[None, :, :, None]
        output = np.asarray(session.run(None, {name: image})[0])
        probability = Image.fromarray(output[0, :, :, 0])
        mask = np.asarray(probability.resize(picture.size, Image.Resampling.BILINEAR)) >= 0.5
        stream = io.BytesIO()
        Image.fromarray(mask.astype(np.uint8) * 255).save(stream, "PNG")
        return stream.getvalue()

    @app.post("/segment")
    async def segment(request: Request) -> Response:
        mask = await run_in_threadpool(predict, await request.body())
        return Response(mask, media_type="image/png")

    return app


if __name__ == "__main__":
    uvicorn.run(create(), port=int(os.environ["PORT"]), log_level="error")
