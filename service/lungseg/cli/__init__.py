"""The service within this process: the same application, asked without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from starlette.types import Receive, Scope, Send

from lungseg.app import create_app
from lungseg.settings import Settings

DEADLINE_S = 600.0
"""Nobody else waits: even the largest slice on the slowest machine may take its time."""


@asynccontextmanager
async def in_process(
    models_dir: Path | None, model: str | None
) -> AsyncGenerator[httpx.ASGITransport]:
    """Starts the application and gives a transport that reaches it.

    Args:
        models_dir: folder of models; None for the one of the settings.
        model: its name; None for the one of the settings.
    """
    changes: dict[str, Any] = {"reload_interval_s": 0.0, "deadline_s": DEADLINE_S, "api_keys": ()}
    if models_dir is not None:
        changes["models_dir"] = models_dir
    if model is not None:
        changes["model"] = model
    app = create_app(Settings(**changes))
    async with app.router.lifespan_context(app) as found:
        state = dict(found or {})
        # The application loads models in the background; here nobody would wait for that.
        await asyncio.to_thread(state["lungseg"].registry.refresh)

        async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "state": state.copy()}, receive, send)

        yield httpx.ASGITransport(with_state)
