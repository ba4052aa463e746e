"""What an API says of itself. The layers ask this value, never the path of a request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fastapi import APIRouter
from starlette.responses import Response
from starlette.types import Scope

from lungseg.settings import Settings
from lungseg.web.errors import problem

Render = Callable[[str, str, str], Response]
"""Writes an error: its code, its sentence, the request id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """One API, or a part of one with rules of its own.

    Attributes:
        prefixes: paths that are its, with all that lies below them.
        router: its endpoints; None where another surface brings them.
        render: how its clients expect an error.
        body_limit: most bytes of a body, as sent and unpacked.
        needs_key: whether it asks for an API key, where any are configured.
        takes: what a POST brings to be computed, so that a full queue refuses it before it is
            read; volumes have threads, a queue and a deadline of their own.
        quiet: asked every few seconds by machines: neither logged nor traced, no work in flight.
    """

    prefixes: tuple[str, ...]
    router: APIRouter | None = None
    render: Render = problem
    body_limit: Callable[[Settings], int] = lambda settings: settings.max_body_bytes
    needs_key: bool = True
    takes: Literal["nothing", "slices", "volumes"] = "nothing"
    quiet: bool = False

    @property
    def label(self) -> str:
        """What metrics call a request that was refused before its route was known."""
        return self.prefixes[0] if self.prefixes else "unrouted"

    def claim(self, path: str) -> int:
        """Length of the prefix that a path lies below; 0 = it is not this surface's."""
        own = (p for p in self.prefixes if path == p or (p != "/" and path.startswith(f"{p}/")))
        return max(map(len, own), default=0)


ELSEWHERE = Surface(prefixes=())
"""Where nothing is: a key is asked for all the same, so that nobody learns what there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surfaces:
    """All APIs of an application; ``root_path`` may be left in front of a path by a gateway."""

    members: tuple[Surface, ...]
    root_path: str = ""

    def full_path(self, path: str) -> str:
        """The path with ``root_path`` before it, whether or not a gateway has taken that off."""
        if path == self.root_path:
            return f"{path}/"
        return path if path.startswith(f"{self.root_path}/") else self.root_path + path

    def owner(self, scope: Scope) -> Surface:
        """The surface that a request is for: the one with the longest prefix."""
        path = self.full_path(scope["path"])[len(self.root_path) :]  # what routes see, too
        best = max(self.members, key=lambda surface: surface.claim(path), default=ELSEWHERE)
        return best if best.claim(path) else ELSEWHERE

    @property
    def labels(self) -> set[str]:
        """What metrics may call a request: a route's path, or its surface where it got no route."""
        routes = (
            route for surface in self.members if surface.router for route in surface.router.routes
        )
        paths = {getattr(route, "path", "") for route in routes} - {""}
        return paths | {surface.label for surface in (*self.members, ELSEWHERE)}

    def quiet(self, scope: Scope) -> bool:
        """Whether nothing is to be said of a request."""
        return self.owner(scope).quiet
