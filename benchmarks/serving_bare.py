"""The least that FastAPI can do: our request and reply models around a constant."""

import sys

import uvicorn
from fastapi import FastAPI

from grpo_platform.api.schemas.inference import InferenceReply, InferenceRequest

app = FastAPI()


@app.post("/inference")
async def infer(body: InferenceRequest) -> InferenceReply:
    """Answer the same to everybody."""
    return InferenceReply(action=1, action_probs=[0.25, 0.75], value=21.5, model_version=1)


if __name__ == "__main__":
    uvicorn.run(
        app, port=int(sys.argv[1]), log_config=None, access_log=False, server_header=False
    )  # fmt: skip
