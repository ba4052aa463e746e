"""What the tests of integrations share: a service that has those that are surfaces."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import Running, running

TOOLS = Path(sys.prefix, "annotation", "bin", "python")
"""A Python that has the annotation tools' own programs."""


@pytest.fixture(scope="session")
def tools() -> Path:
    """That Python, where there is one."""
    if not TOOLS.exists():
        pytest.skip("the annotation tools are not installed: `make test-annotation` does so")
    return TOOLS


@pytest.fixture(scope="module")
def monailabel(models: Path) -> Iterator[Running]:
    with running(models, integrations=("monailabel",)) as started:
        yield started
