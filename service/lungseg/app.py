"""The application: surfaces and layers around what ``assembly`` makes of the settings."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

import lungseg
from lungseg.assembly import build
from lungseg.inference.registry import Registry
from lungseg.inference.session import Engine, ProviderMissing
from lungseg.inference.trouble import trouble
from lungseg.settings import Settings
from lungseg.web.keys import Keys
from lungseg.web.layers.limits import LimitsLayer
from lungseg.web.layers.refusals import REFUSALS, refuse
from lungseg.web.layers.telemetry import TelemetryLayer
from lungseg.web.openapi import describe_api
from lungseg.web.state import State
from lungseg.web.surface import Surface, Surfaces
from lungseg.web.surfaces import batch, compare, health, home, models, page, segment, volume
from lungseg.web.surfaces.v2 import routes as v2
from lungseg.web.surfaces.v2.codec import HEADER_LENGTH

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

SURFACES = (
    segment.SURFACE,
    batch.SURFACE,
    volume.SURFACE,
    compare.SURFACE,
    models.SURFACE,
    *v2.SURFACES,
    health.SURFACE,
    home.SURFACE,
    page.SURFACE,
)
"""Every API that is served."""
EXPOSED_HEADERS = ("X-Request-ID", "X-Segmentation", "Server-Timing", "Retry-After", HEADER_LENGTH)
"""What scripts of other origins may read."""
LOG = logging.getLogger("lungseg.app")


def create_app(settings: Settings, surfaces: tuple[Surface, ...] = SURFACES) -> FastAPI:
    """Builds the whole service; nothing is opened or started before its lifespan.

    Raises:
        ValueError: a provider is not there, an API key is malformed or the file of them cannot be
            used, or tracing is asked for but not installed; the sentence names the setting.
    """
    engine = Engine(
        providers=settings.providers,
        intra_op_threads=settings.intra_op_threads or settings.cores,
        alone_threads=min(settings.alone_threads, settings.cores),
    )
    try:
        engine.check()
    except ProviderMissing as error:
        raise ValueError(f"LUNGSEG_PROVIDERS: {error}") from None
    keys = Keys.read(settings)
    surfaces = (*surfaces, *_integrations(settings))
    spans = _start_tracing() if settings.tracing else None
    owners = Surfaces(members=surfaces, root_path=settings.root_path)

    def lifespan(_app: FastAPI) -> AbstractAsyncContextManager[dict[str, State]]:
        return _running(settings, engine, keys, spans, owners.labels)

    # Hospital networks reach no CDN: the page's scripts come from this server.
    app = FastAPIOffline(
        docs_url=None,  # ours has the page's dress
        redoc_url=None,
        static_url=page.DOCS_FILES,
        title="lungseg",
        version=lungseg.__version__,
        summary="Lung segmentation in chest CT slices",
        description=home.RESEARCH_ONLY,
        redirect_slashes=False,
        lifespan=lifespan,
        exception_handlers=dict.fromkeys(REFUSALS, refuse),
        middleware=_layers(settings, owners),
        telemetry={
            "tracing": spans is not None,
            "tracer_provider": spans,
            "exclude": owners.quiet,
            # Ours are in /metrics and in the log; FastAPI's quote what exceptions say.
            **dict.fromkeys(("metrics", "logs", "operation_spans", "auto_configure"), False),
        },
    )
    for surface in surfaces:
        if surface.router:
            app.include_router(surface.router)
    describe_api(app)
    return app


def _integrations(settings: Settings) -> Iterator[Surface]:
    """The surfaces of integrations that the settings name; no others are even imported."""
    for name in dict.fromkeys(settings.integrations):
        yield from import_module(f"lungseg.integrations.{name}").surfaces(settings)


def _layers(settings: Settings, surfaces: Surfaces) -> list[Middleware]:
    layers = [Middleware(TelemetryLayer, surfaces=surfaces), Middleware(LimitsLayer)]
    if settings.cors_origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=("*",),
            expose_headers=EXPOSED_HEADERS,
        )
        layers.insert(0, cors)  # outermost: scripts can read every answer, that of a bug too
    return layers


@contextlib.asynccontextmanager
async def _running(
    settings: Settings,
    engine: Engine,
    keys: Keys,
    spans: TracerProvider | None,
    routes: Iterable[str],
) -> AsyncGenerator[dict[str, State]]:
    state, batcher = build(settings, engine, keys)
    state.metrics.expect(routes)
    loaded = asyncio.Event()
    keeper = asyncio.create_task(_keep_current(state, settings.reload_interval_s, loaded))
    try:
        # Who can connect is sent work; until the models are loaded, nobody should be.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(loaded.wait(), settings.first_load_s)
        yield {"lungseg": state}
    finally:
        state.lifecycle.draining = True
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        for pipeline in (state.pipeline, state.volumes):  # nobody waits for them any more
            await asyncio.to_thread(pipeline.decoders.close)
        for workers in (state.workers, state.volume_workers):
            await asyncio.to_thread(workers.close)
        if batcher:
            batcher.close()
        if spans:
            await asyncio.to_thread(spans.shutdown)


def _start_tracing() -> TracerProvider:
    try:
        from lungseg.web.layers.tracing import start_tracing
    except ImportError:
        raise ValueError(
            "LUNGSEG_TRACING: expected the extra otel, it is not installed: "
            "pip install lungseg[otel]"
        ) from None
    return start_tracing()


async def _keep_current(state: State, interval_s: float, done: asyncio.Event) -> None:
    """Loads models and keys, again at each interval and each SIGHUP; tells when it first did.

    Whatever goes wrong is counted, and it goes on: without it no model would come or go any more.
    """
    registry, trouble_told = state.registry, ""
    told = asyncio.Event()
    # Windows has no such signal, and outside the main thread nobody can listen to one.
    if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, told.set)
    while True:
        told.clear()
        before = _loaded(registry)
        try:
            await asyncio.to_thread(state.keys.reload)
            await asyncio.to_thread(registry.refresh)
        except Exception:
            LOG.exception("reading keys or models again failed, it is tried again")
            state.metrics.reload_failures.inc()
        if (now := _loaded(registry)) != before:
            LOG.info("models", extra={"fields": {"loaded": now}})
        if (found := trouble(registry)) and found != trouble_told:
            LOG.warning("%s", found)
        trouble_told = found
        done.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(told.wait(), interval_s or None)


def _loaded(registry: Registry) -> list[str]:
    return sorted(
        f"{name}/{version.number} {version.state}{' ' if version.reason else ''}{version.reason}"
        for name, family in registry.families().items()
        for version in family.versions.values()
    )
