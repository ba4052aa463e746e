"""What anybody would write: decode, resize, run, threshold, PNG; nothing is measured or refused.

It ignores HU, padding and the body's box, so its masks are worse, and it answers a mask only.
"""

from __future__ import annotations

import io
import os

import numpy as np
import onnxruntime as ort
import uvicorn
from fastapi import FastAPI, Response, UploadFile
from PIL import Image

GRID = (256, 256)
THREADS = 2


def create() -> FastAPI:
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = ort.InferenceSession(
        os.environ["MODEL_FILE"], options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    app = FastAPI()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/segment")
    def segment(file: UploadFile) -> Response:
        picture = Image.open(io.BytesIO(file.file.read())).convert("L")
        grey = np.asarray(picture.resize(GRID, Image.Resampling.BILINEAR), np.float32)
        output = np.asarray(session.run(None, {name: grey[None, :, :, None]})[0])
        mask = Image.fromarray(((output[0, :, :, 0] > 0.5) * 255).astype(np.uint8))
        stream = io.BytesIO()
        mask.resize(picture.size, Image.Resampling.NEAREST).save(stream, "PNG")
        return Response(stream.getvalue(), media_type="image/png")

    return app


if __name__ == "__main__":
    uvicorn.run(create(), port=int(os.environ["PORT"]), log_level="error")
