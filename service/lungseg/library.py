"""The library: a model opened once, slices and volumes segmented in this process, no server.

>>> import lungseg                                            # doctest: +SKIP
>>> segmenter = lungseg.load()
>>> segmenter.segment("slice.dcm").statistics["area_mm2"]
>>> segmenter.segment_volume("series/").statistics["volume_ml"]
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lungseg.answers import MASK_ENCODING, File, Result, VolumeResult
from lungseg.core.errors import InvalidParameter
from lungseg.core.volume import Progress, VolumeLimits, silent
from lungseg.formats.archive import Member, in_memory
from lungseg.formats.decoders import usable_cores
from lungseg.forms import FORMS, Form, answer
from lungseg.inference.errors import BundleError, ModelNotReady, UnknownModel
from lungseg.inference.model import Model
from lungseg.inference.registry import Policy, Registry
from lungseg.inference.session import Engine
from lungseg.packaged import models_folder
from lungseg.pipeline import Outcome, Pipeline
from lungseg.query import ModelQuery, SegmentQuery, checked_query
from lungseg.sources import Source, VolumeSource, content_of, files_of
from lungseg.volume_forms import VOLUME_FORMS
from lungseg.volume_query import VolumeQuery
from lungseg.volumes import VolumeOutcome, VolumePipeline

DEFAULT_MODEL = "lung-unet"
CPU = ("CPUExecutionProvider",)
LOCAL_LIMITS = VolumeLimits(max_files=1_000_000, max_sent_bytes=1 << 40)
"""What lies in a folder is read file by file when it is needed: it may be a whole study."""


def load(
    name: str = DEFAULT_MODEL,
    *,
    version: str | int | None = None,
    models: str | os.PathLike[str] | None = None,
    threads: int = 1,
    providers: Sequence[str] = CPU,
) -> Segmenter:
    """Opens a model.

    Args:
        name: of the model.
        version: its number; None for the newest that can be opened.
        models: folder of ``name/version`` bundles; None for ``models`` here where it holds a
            model, else the one inside the package.
        threads: of one inference; several threads may call one segmenter at a time, too.
        providers: execution providers of ONNX Runtime, first choice first.

    Raises:
        UnknownModel, ModelNotReady, BundleError: there is no such model, or it is refused;
            the message names the folder searched.
        ProviderMissing: a provider is not there; it is a ``ValueError``.
    """
    root = Path(models) if models is not None else models_folder()
    if not root.is_dir():
        raise UnknownModel(f"expected a folder of models, received {root.absolute()}: it is none")
    engine = Engine(providers=tuple(providers), intra_op_threads=threads)
    engine.check()
    registry = Registry(
        root=root,
        policy=Policy(model=name, keep=1 if version is None else 0),
        open_bundle=lambda folder: Model.load(folder, engine),
    )
    try:
        model = registry.load(name, None if version is None else str(version))
    except (UnknownModel, ModelNotReady, BundleError) as error:
        asked = name if version is None else f"{name} {version}"
        raise type(error)(f"{error} (looked for {asked} in {root.absolute()})") from None
    return Segmenter(model)


class Segmenter:
    """A model that segments slices and volumes; threads may share one.

    The pipelines say what is accepted, by default about what a service with default settings
    accepts, and folders of any size.
    """

    def __init__(
        self,
        model: Model,
        pipeline: Pipeline | None = None,
        volumes: VolumePipeline | None = None,
    ) -> None:
        self.model = model
        self._pipeline = pipeline or Pipeline()
        self._volumes = volumes or VolumePipeline(threads=usable_cores(), limits=LOCAL_LIMITS)

    def segment(self, source: Source, **parameters: Any) -> Result:
        """Segments one slice; of arrays whose intensities are HU say so by ``unit="hu"``.

        Parameters are what ``SegmentQuery`` lists, for example ``threshold``, ``allow_non_ct``,
        ``spacing_mm`` and ``window_hu`` (pairs).

        Raises:
            LungsegError: the slice or a parameter is refused.
            OSError: the file cannot be read.
        """
        outcome = self._outcome(source, {**parameters, "encoding": MASK_ENCODING})
        return Result.of(answer(outcome))

    def fetch(self, source: Source, form: str, **parameters: Any) -> File:
        """As ``segment``, but makes a file: the form is a name of ``FORMS``."""
        _check_form(form, FORMS)
        outcome = self._outcome(source, parameters)
        return File(
            content=FORMS[form].encode(outcome),
            media_type=FORMS[form].media_type,
            summary=outcome.describe(),
        )

    def segment_volume(
        self, source: VolumeSource, *, progress: Progress | None = None, **parameters: Any
    ) -> VolumeResult:
        """Segments one volume: a folder, a file or the files of a series, bytes, or an array.

        Arrays have the shape (slices, rows, columns). Parameters are what ``VolumeQuery`` lists,
        for example ``series``, ``threshold``, ``unit`` and ``spacing_mm`` (three numbers).

        Args:
            source: the volume, with whatever lies beside it.
            progress: hears ("read" | "decode" | "segment", done, total), perhaps in other threads.
            parameters: what is asked.

        Raises:
            LungsegError: the volume or a parameter is refused.
            OSError: a file cannot be read.
        """
        outcome = self._volume_outcome(source, (), progress or silent, parameters)
        return VolumeResult(
            labels=outcome.segmentation.labels,
            answer=outcome.describe(),
            fetch=partial(_file_of, outcome),
        )

    def fetch_volume(
        self,
        source: VolumeSource,
        form: str,
        *,
        progress: Progress | None = None,
        **parameters: Any,
    ) -> File:
        """As ``segment_volume``, but makes a file: the form is a name of ``VOLUME_FORMS``."""
        _check_form(form, VOLUME_FORMS)
        outcome = self._volume_outcome(source, (form,), progress or silent, parameters)
        return _file_of(outcome, form)

    def _volume_outcome(
        self,
        source: VolumeSource,
        forms: Sequence[str],
        progress: Progress,
        parameters: dict[str, Any],
    ) -> VolumeOutcome:
        query = checked_query(VolumeQuery, parameters)
        self._refuse_other_models(query)
        members = [_member(file) for file in files_of(source)]
        volume = self._volumes.read(members, query, progress=progress)
        for form in forms:
            VOLUME_FORMS[form].check(volume)
        return self._volumes.segment(volume, self.model, query, progress=progress)

    def _outcome(self, source: Source, parameters: dict[str, Any]) -> Outcome:
        query = checked_query(SegmentQuery, parameters)
        self._refuse_other_models(query)
        return self._pipeline.segment(content_of(source), self.model, query)

    def _refuse_other_models(self, query: ModelQuery) -> None:
        if query.model or query.version:
            raise InvalidParameter("a segmenter has one model, load() opens another")


def _file_of(outcome: VolumeOutcome, form: str) -> File:
    """One form of an answer."""
    _check_form(form, VOLUME_FORMS)
    return File(
        content=VOLUME_FORMS[form].encode(outcome),
        media_type=VOLUME_FORMS[form].media_type,
        summary=outcome.describe(),
    )


def _check_form(form: str, forms: Mapping[str, Form[Any]]) -> None:
    if form not in forms:
        raise InvalidParameter(f"expected a form among {', '.join(forms)}, received another")


def _member(file: Path | bytes) -> Member:
    """A file that is read when it is needed, or its content."""
    if isinstance(file, bytes):
        return in_memory(file)

    def head(size: int) -> bytes:
        with file.open("rb") as stream:
            return stream.read(size)

    size_bytes = file.stat().st_size
    return Member(filename="", size_bytes=size_bytes, read=file.read_bytes, read_head=head)
