"""All model versions of a folder: load beside, check, swap one reference, retire.

Readers take a frozen snapshot and never wait. Writers (``refresh``, ``load``, ``unload``) hold
one lock, load beside what serves, and publish a new snapshot. A request keeps its ``Model``, so
it finishes on the version it started with; the session goes when the last request lets go.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from lungseg.inference.errors import BundleError, BundleUnreadable, ModelNotReady, UnknownModel
from lungseg.inference.model import BUNDLE_FILES, Model
from lungseg.inference.session import ProviderMissing

State = Literal["READY", "LOADING", "UNAVAILABLE"]
Fingerprint = tuple[tuple[str, int, int], ...]
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SHOWN = 3
"""Versions whose reasons are given where none serves."""
LOG = logging.getLogger("lungseg.models")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version as it stands: a loaded model, or the reason why there is none.

    A loaded model may have a reason too: newer content of its folder was refused.
    """

    number: int
    fingerprint: Fingerprint = ()
    model: Model | None = None
    state: State = "UNAVAILABLE"
    reason: str = ""
    refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """All versions of one model name, and the one that serves where a request names none."""

    versions: Mapping[int, Version] = field(default_factory=dict[int, Version])
    pin: int | None = None
    unloaded: bool = False

    @property
    def serving(self) -> Version | None:
        """The pinned version, else the newest that is loaded; None when that isn't there."""
        if self.pin is not None:
            pinned = self.versions.get(self.pin)
            return pinned if pinned and pinned.model else None
        loaded = [version for version in self.versions.values() if version.model]
        return max(loaded, key=lambda version: version.number, default=None)

    @property
    def why_not(self) -> str:
        """Why none serves, version by version, the newest first; of many the newest few."""
        shown = sorted(self.versions.values(), key=lambda version: -version.number)[:_SHOWN]
        if self.pin is not None:
            if self.pin not in self.versions:
                numbers = ", ".join(str(version.number) for version in shown) or "none"
                return f"version {self.pin} is to serve and is not there; there is {numbers}"
            shown = [self.versions[self.pin]]
        reasons = [f"version {version.number}: {version.reason}" for version in shown]
        return "; ".join(reasons) or "it has no version"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is loaded without being asked for."""

    model: str
    """The name that serves where a request names none; it is loaded first."""
    pin: int | None = None
    """Its version, None for the newest that can be loaded."""
    keep: int = 2
    """How many of the newest versions of each name are loaded."""


@dataclass(slots=True)
class Registry:
    """The models of one folder."""

    root: Path
    """Folder of ``<name>/<version>/`` bundles."""
    policy: Policy
    open_bundle: Callable[[Path], Model]
    """How a bundle becomes a model; raises ``BundleError`` or ``ProviderMissing``."""
    on_failure: Callable[[str, Version], None] = lambda _name, _version: None
    """Hears the model's name and the version of each bundle that is refused, with the reason."""
    _families: Mapping[str, Family] = field(default_factory=dict[str, Family])
    _writing: threading.Lock = field(default_factory=threading.Lock)

    def families(self) -> Mapping[str, Family]:
        """The present snapshot: names and their versions."""
        return self._families

    def get(self, name: str | None = None, version: str | None = None) -> Model:
        """The model for a request: the configured name and its serving version where it says none.

        Raises:
            UnknownModel: there is no such name or version.
            ModelNotReady: there is, but it is not loaded.
        """
        family = self._families.get(name or self.policy.model)
        if family is None:
            if name is None or name == self.policy.model:
                raise ModelNotReady("the configured model is not in the models folder (yet)")
            raise UnknownModel("expected a model listed under /models, received another name")
        if version is None:
            found = family.serving
        elif not _VERSION.fullmatch(version) or int(version) not in family.versions:
            raise UnknownModel("expected a version listed under /models, received another")
        else:
            found = family.versions[int(version)]
        if found is None or found.model is None:
            reason = found.reason if found else family.why_not
            raise ModelNotReady(f"the model is not ready: {reason}")
        return found.model

    def refresh(self) -> None:
        """Looks at the folder: loads what is new or changed, retires what is old or gone.

        Raises:
            ModelNotReady: the folder cannot be read; everything stays as it is.
        """
        with self._writing:
            on_disk = self._scan()
            first = self.policy.model
            for name in sorted(on_disk, key=lambda name: (name != first, name)):
                self._update(name, on_disk[name])
            for name in set(self._families) - set(on_disk):
                self._update(name, {})

    def load(self, name: str, version: str | None = None) -> Model:
        """Loads a model now. With a version: exactly that one, which then serves (roll-back).

        Without a version the newest serves again, as before any roll-back or unload.

        Raises:
            UnknownModel: there is no such folder.
            BundleError: the bundle is refused; what served goes on serving.
            ModelNotReady: no version of the model can be loaded.
        """
        with self._writing:
            on_disk = self._scan().get(name)
            if on_disk is None:
                raise UnknownModel("expected a model in the models folder, received another name")
            family = self._families.get(name, Family())
            if version is None:
                self._publish(name, replace(family, pin=self._pin(name), unloaded=False))
            elif not _VERSION.fullmatch(version) or int(version) not in on_disk:
                raise UnknownModel("expected a version in the models folder, received another")
            else:
                number = int(version)
                opened = self._open(name, number, on_disk[number])
                if opened.model is None:
                    self._put(name, self._kept(name, opened))
                    raise BundleError(opened.reason)
                versions = {**family.versions, number: opened}
                self._publish(name, Family(versions=versions, pin=number))
            self._update(name, on_disk)
        return self.get(name)

    def unload(self, name: str) -> None:
        """Lets all versions of a model go, until it is loaded again.

        Raises:
            UnknownModel: there is no such model.
        """
        with self._writing:
            if name not in self._families:
                raise UnknownModel("expected a model listed under /models, received another name")
            family, reason = self._families[name], "unloaded by request"
            versions = {number: Version(number=number, reason=reason) for number in family.versions}
            self._publish(name, replace(family, versions=versions, unloaded=True))

    def _update(self, name: str, on_disk: Mapping[int, Fingerprint]) -> None:
        """Brings one family in step with the folder, newest version first."""
        family = self._families.get(name, Family(pin=self._pin(name)))
        if family.unloaded:
            return
        self._publish(name, family)
        loaded = 0
        for number in sorted(on_disk, reverse=True):
            if number != family.pin and loaded >= self.policy.keep:
                reason = f"not among the {self.policy.keep} newest; can be loaded by version"
                self._put(name, Version(number=number, reason=reason))
                continue
            known = self._families[name].versions.get(number)
            if known is None or known.fingerprint != on_disk[number]:
                self._put(name, known or Version(number=number, state="LOADING", reason="loading"))
                known = self._kept(name, self._open(name, number, on_disk[number]))
                self._put(name, known)
            loaded += known.model is not None
        self._forget(name, on_disk)

    def _forget(self, name: str, on_disk: Mapping[int, Fingerprint]) -> None:
        """Drops versions whose folder is gone, but never the only one that can serve."""
        family = self._families[name]
        versions = {n: version for n, version in family.versions.items() if n in on_disk}
        remaining = replace(family, versions=versions)
        serving = family.serving
        if serving and not remaining.serving:
            gone = replace(serving, fingerprint=(), reason="its folder is gone")
            remaining = replace(family, versions={**versions, serving.number: gone})
        if remaining.versions:
            self._publish(name, remaining)
        else:
            self._families = {key: value for key, value in self._families.items() if key != name}

    def _open(self, name: str, number: int, fingerprint: Fingerprint) -> Version:
        try:
            model = self.open_bundle(self.root / name / str(number))
        except BundleUnreadable as error:
            return self._failed(name, number, str(error))  # without a fingerprint: tried again
        except (BundleError, ProviderMissing) as error:
            return self._failed(name, number, str(error), fingerprint)
        except Exception as error:
            LOG.exception("a version could not be loaded", extra=_fields(name, number))
            # Nothing is known of the folder's content: without a fingerprint it is tried again.
            reason = f"loading it failed ({type(error).__name__}), it is tried again"
            return self._failed(name, number, reason)
        return Version(number=number, fingerprint=fingerprint, model=model, state="READY")

    def _failed(
        self, name: str, number: int, reason: str, fingerprint: Fingerprint = ()
    ) -> Version:
        refused = Version(number=number, fingerprint=fingerprint, reason=reason, refused=True)
        self.on_failure(name, refused)
        return refused

    def _kept(self, name: str, opened: Version) -> Version:
        """What stands after an attempt: a refused bundle never replaces a loaded one."""
        family = self._families.get(name, Family())
        before = family.versions.get(opened.number)
        if opened.model is None and before is not None and before.model is not None:
            reason = f"newer content of the folder was refused: {opened.reason}"
            return replace(before, fingerprint=opened.fingerprint, reason=reason, refused=True)
        return opened

    def _pin(self, name: str) -> int | None:
        return self.policy.pin if name == self.policy.model else None

    def _put(self, name: str, version: Version) -> None:
        family = self._families.get(name, Family())
        versions = {**family.versions, version.number: version}
        self._publish(name, replace(family, versions=versions))

    def _publish(self, name: str, family: Family) -> None:
        self._families = {**self._families, name: family}

    def _scan(self) -> dict[str, dict[int, Fingerprint]]:
        """Names, versions and file states on disk; other folders are none of ours."""
        found = {
            folder.name: {int(v.name): _fingerprint(v) for v in _folders(folder, _VERSION)}
            for folder in _folders(self.root, _NAME)
        }
        return {name: versions for name, versions in found.items() if versions}


def _fields(name: str, number: int) -> dict[str, dict[str, str]]:
    return {"fields": {"model": name, "version": str(number)}}


def _folders(parent: Path, named: re.Pattern[str]) -> list[Path]:
    """Folders of such names within a folder, none where that is gone.

    Raises:
        ModelNotReady: it is there, and cannot be read now; nothing is known of what it holds.
    """
    try:
        return [at for at in parent.iterdir() if named.fullmatch(at.name) and at.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        raise ModelNotReady("the models folder cannot be read at the moment") from None


def _fingerprint(folder: Path) -> Fingerprint:
    states: list[tuple[str, int, int]] = []
    for name in BUNDLE_FILES:
        try:
            status = (folder / name).stat()
        except OSError:
            continue
        states.append((name, status.st_size, status.st_mtime_ns))
    return tuple(states)
