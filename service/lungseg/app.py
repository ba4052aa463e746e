"""The one place where settings become objects."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncGenerator

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware import Middleware

import lungseg
from lungseg.inference.batcher import Batcher
from lungseg.inference.model import Model
from lungseg.inference.registry import Policy, Registry
from lungseg.inference.runner import Runner
from lungseg.inference.session import Engine
from lungseg.inference.workers import Workers
from lungseg.pipeline import Pipeline
from lungseg.settings import Settings
from lungseg.web import batch, health, models, segment, v2
from lungseg.web.errors import add_error_handlers
from lungseg.web.limits import LimitsLayer
from lungseg.web.metrics import Metrics
from lungseg.web.openapi import describe_api
from lungseg.web.state import Lifecycle, LifespanState, Limits, State
from lungseg.web.telemetry import TelemetryLayer
from lungseg.web.tracing import Tracer

LOG = logging.getLogger("lungseg.app")


def create_app(settings: Settings) -> FastAPI:
    """Builds the whole service; nothing is opened or started before its lifespan.

    Args:
        settings: see ``Settings``.

    Raises:
        ProviderMissing: a provider that is asked for is not there.
        TracingMissing: tracing is asked for, but not installed.
        ValueError, OSError: the API keys cannot be read.
    """
    engine = Engine(
        providers=settings.providers, intra_op_threads=settings.intra_op_threads or settings.cores
    )
    engine.check()
    limits = _limits(settings)
    tracer = Tracer() if settings.tracing else None

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[LifespanState]:
        state, batcher = _build(settings, engine, limits, tracer)
        loaded = asyncio.Event()
        keeper = asyncio.create_task(
            _keep_models(state.registry, settings.reload_interval_s, loaded)
        )
        try:
            # Who can connect is sent work; until the models are loaded, nobody should be.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(loaded.wait(), settings.first_load_s)
            yield {"lungseg": state}
        finally:
            state.lifecycle.draining = True
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
            await asyncio.to_thread(state.workers.close)
            if batcher:
                batcher.close()
            if tracer:
                await asyncio.to_thread(tracer.close)

    # Hospital networks reach no CDN: the page's scripts come from this server.
    app = FastAPIOffline(
        redoc_url=None,
        static_url="/docs-files",
        title="lungseg",
        version=lungseg.__version__,
        summary="Lung segmentation in chest CT slices",
        description="Research use only, not a medical device.",
        root_path=settings.root_path,
        redirect_slashes=False,
        lifespan=lifespan,
        middleware=[
            Middleware(TelemetryLayer, root_path=settings.root_path),
            Middleware(LimitsLayer),
        ],
    )
    for router in (segment.router, batch.router, models.router, v2.router, health.router):
        app.include_router(router)
    add_error_handlers(app)
    describe_api(app)
    return app


def _build(
    settings: Settings, engine: Engine, limits: Limits, tracer: Tracer | None
) -> tuple[State, Batcher | None]:
    metrics = Metrics()
    pin = None if settings.model_version == "latest" else int(settings.model_version)
    registry = Registry(
        root=settings.models_dir,
        policy=Policy(model=settings.model, pin=pin, keep=settings.loaded_versions),
        open_bundle=lambda folder: Model.load(folder, engine),
        on_failure=lambda name, number: metrics.load_failures.labels(name, number).inc(),
    )
    batcher = _build_batcher(settings, metrics)
    state = State(
        registry=registry,
        pipeline=Pipeline(
            runner=Runner(batcher, on_batch=metrics.batch_size.observe),
            max_pixels=settings.max_pixels,
            allow_non_ct=settings.allow_non_ct,
        ),
        workers=Workers(threads=settings.workers or settings.cores, queue_size=settings.queue_size),
        metrics=metrics,
        limits=limits,
        lifecycle=Lifecycle(),
        trace=tracer.record if tracer else None,
    )
    metrics.watch_models(registry)
    metrics.watch("queue_depth", "Requests that wait for a worker.", lambda: state.workers.waiting)
    metrics.watch("busy_workers", "Workers that compute.", lambda: state.workers.running)
    metrics.watch("in_flight", "Requests being answered.", lambda: state.lifecycle.in_flight)
    metrics.watch("ready", "1 when work is taken.", lambda: float(state.ready))
    return state, batcher


def _build_batcher(settings: Settings, metrics: Metrics) -> Batcher | None:
    if settings.batching == "off":
        return None
    batcher = Batcher(
        max_size=settings.batch_max_size,
        window_s=settings.batch_window_ms / 1000 if settings.batching == "window" else 0.0,
        on_batch=metrics.batch_size.observe,
    )
    metrics.watch("batch_queue_depth", "Slices that wait for a batch.", lambda: batcher.waiting)
    return batcher


def _limits(settings: Settings) -> Limits:
    return Limits(
        max_body_bytes=settings.max_body_bytes,
        max_batch_bytes=settings.max_batch_bytes,
        max_buffered_bytes=settings.max_buffered_bytes,
        max_pixels=settings.max_pixels,
        max_batch_items=settings.max_batch_items,
        deadline_s=settings.deadline_s,
        allow_non_ct=settings.allow_non_ct,
        model_control=settings.model_control,
        key_hashes=settings.key_hashes(),
    )


async def _keep_models(registry: Registry, interval_s: float, done: asyncio.Event) -> None:
    """Loads the models, then again at each interval and at each SIGHUP; tells when it first did."""
    told = asyncio.Event()
    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
        # Not on Windows, and not outside the main thread, where tests run the application.
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, told.set)
    while True:
        told.clear()
        before = _loaded(registry)
        await asyncio.to_thread(registry.refresh)
        if (now := _loaded(registry)) != before:
            LOG.info("models", extra={"fields": {"loaded": now}})
        done.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(told.wait(), interval_s or None)


def _loaded(registry: Registry) -> list[str]:
    families = registry.families().items()
    return sorted(
        f"{name}/{version.number} {version.state}{' ' if version.reason else ''}{version.reason}"
        for name, family in families
        for version in family.versions.values()
    )
