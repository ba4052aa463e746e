"""Settings become objects here, and nowhere else: what every request shares."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from lungseg.core.volume import VolumeLimits
from lungseg.formats.decoders import DecoderLimits, Decoders, Reason
from lungseg.inference.batcher import Batcher
from lungseg.inference.model import Model
from lungseg.inference.registry import Policy, Registry, Version
from lungseg.inference.runner import Runner
from lungseg.inference.session import Engine
from lungseg.inference.workers import Workers
from lungseg.pipeline import Pipeline
from lungseg.settings import Settings
from lungseg.volumes import VolumePipeline
from lungseg.web.held import Ledger
from lungseg.web.keys import Keys
from lungseg.web.layers.metrics import Metrics
from lungseg.web.state import Lifecycle, State

VOLUME_NICENESS = 10
"""How far volumes stand back behind slices: these get nine tenths of a core that both want."""
FILES_PER_SLICE = 3
"""Files that may come with a volume's slices: other series, and what lies beside them."""
LOG = logging.getLogger("lungseg.app")


def build(settings: Settings, engine: Engine, keys: Keys) -> tuple[State, Batcher | None]:
    """What handlers share, and the batcher where there is one; nothing is loaded yet."""
    metrics = Metrics()
    pin = None if settings.model_version == "latest" else int(settings.model_version)
    registry = Registry(
        root=settings.models_dir,
        policy=Policy(model=settings.model, pin=pin, keep=settings.loaded_versions),
        open_bundle=lambda folder: Model.load(folder, engine),
        on_failure=partial(_tell_of_refusal, metrics, settings.models_dir),
    )
    batcher = _build_batcher(settings, metrics)
    workers = Workers(threads=settings.workers or settings.cores, queue_size=settings.queue_size)
    volume_workers = Workers(
        threads=settings.volumes,
        queue_size=settings.volumes,
        large_bytes=settings.max_volume_bytes,  # they are all of one kind
        niceness=VOLUME_NICENESS,
    )
    runner = Runner(
        batcher, on_batch=metrics.batch_size.observe, alone=lambda: workers.running == 1
    )
    state = State(
        registry=registry,
        pipeline=Pipeline(
            runner=runner,
            max_pixels=settings.max_pixels,
            allow_non_ct=settings.allow_non_ct,
            decoders=_build_decoders(
                settings, metrics, settings.decoders or settings.workers or settings.cores
            ),
        ),
        workers=workers,
        volumes=_build_volumes(settings, metrics),
        volume_workers=volume_workers,
        metrics=metrics,
        settings=settings,
        keys=keys,
        lifecycle=Lifecycle(Ledger(settings.max_buffered_bytes)),
    )
    _watch(state)
    return state, batcher


def _watch(state: State) -> None:
    """Adds the gauges that are read when somebody asks."""
    metrics = state.metrics
    metrics.watch_models(state.registry)
    metrics.watch("api_keys", "API keys known; 0 = everybody may call.", lambda: len(state.keys))
    text = "1 while the file of API keys cannot be used, so that older ones count."
    metrics.watch("api_keys_file_refused", text, lambda: float(bool(state.keys.problem)))
    metrics.watch("queue_depth", "Requests that wait for a worker.", lambda: state.workers.waiting)
    metrics.watch("busy_workers", "Workers that compute.", lambda: state.workers.running)
    text = "Volumes that wait for their turn."
    metrics.watch("volume_queue_depth", text, lambda: state.volume_workers.waiting)
    metrics.watch("busy_volumes", "Volumes being computed.", lambda: state.volume_workers.running)
    metrics.watch("in_flight", "Requests being answered.", lambda: state.lifecycle.in_flight)
    metrics.watch(
        "buffered_bytes", "Bytes of requests in memory.", lambda: state.lifecycle.buffered_bytes
    )
    metrics.watch("ready", "1 when work is taken.", lambda: float(state.unreadiness is None))


def _build_volumes(settings: Settings, metrics: Metrics) -> VolumePipeline:
    """Volumes share nothing with slices but the models, so that these need not wait for them."""
    threads = settings.volume_threads or settings.cores
    return VolumePipeline(
        runner=Runner(on_batch=metrics.batch_size.observe),
        threads=threads,
        limits=VolumeLimits(
            max_slices=settings.max_volume_slices,
            max_bytes=settings.max_volume_bytes,
            max_pixels=settings.max_pixels,
            max_files=FILES_PER_SLICE * settings.max_volume_slices,
        ),
        decoders=_build_decoders(settings, metrics, threads * settings.volumes),
    )


def _build_decoders(settings: Settings, metrics: Metrics, processes: int) -> Decoders:
    def told(reason: Reason) -> None:
        metrics.decoder_restarts.labels(reason).inc()
        LOG.warning("decoder replaced", extra={"fields": {"reason": reason}})

    limits = DecoderLimits(
        processes=processes,
        timeout_s=settings.decoder_timeout_s,
        memory_bytes=settings.decoder_memory_bytes,
    )
    return Decoders(limits, on_restart=told)


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


def _tell_of_refusal(metrics: Metrics, root: Path, name: str, version: Version) -> None:
    """Counts a refused bundle, and says in the log alone where it lies."""
    metrics.load_failures.labels(name, version.number).inc()
    folder = root.absolute() / name / str(version.number)
    LOG.warning("model refused", extra={"fields": {"folder": folder, "reason": version.reason}})
