"""The library: a model opened once, slices segmented in this process, no server.

>>> import lungseg                                            # doctest: +SKIP
>>> lungseg.load().segment("slice.dcm").statistics["area_mm2"]
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lungseg.answers import MASK_ENCODING, File, Result
from lungseg.core.errors import InvalidParameter
from lungseg.forms import FORMS, answer
from lungseg.inference.errors import BundleError, ModelNotReady, UnknownModel
from lungseg.inference.model import Model
from lungseg.inference.registry import Policy, Registry
from lungseg.inference.session import Engine
from lungseg.packaged import models_folder
from lungseg.pipeline import Outcome, Pipeline
from lungseg.query import SegmentQuery, checked_query
from lungseg.sources import Source, content_of

DEFAULT_MODEL = "lung-unet"
CPU = ("CPUExecutionProvider",)


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
    """A model that segments slices; threads may share one.

    The pipeline says what is accepted, by default what a service with default settings accepts.
    """

    def __init__(self, model: Model, pipeline: Pipeline | None = None) -> None:
        self.model = model
        self._pipeline = pipeline or Pipeline()

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
        if form not in FORMS:
            raise InvalidParameter(f"expected a form among {', '.join(FORMS)}, received another")
        outcome = self._outcome(source, parameters)
        return File(
            content=FORMS[form].encode(outcome),
            media_type=FORMS[form].media_type,
            summary=outcome.describe(),
        )

    def _outcome(self, source: Source, parameters: dict[str, Any]) -> Outcome:
        query = checked_query(SegmentQuery, parameters)
        if query.model or query.version:
            raise InvalidParameter("a segmenter has one model, load() opens another")
        return self._pipeline.segment(content_of(source), self.model, query)
