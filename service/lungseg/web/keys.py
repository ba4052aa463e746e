"""API keys: which are known, and whose a request is. A file of keys may change meanwhile."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import logging
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lungseg.settings import Settings

LOG = logging.getLogger("lungseg.keys")
ID_DIGITS = 8
"""Hexadecimal digits of a key's SHA-256 that name it in the log: enough to tell keys apart, too
few to find a random key by."""
MAX_FILE_BYTES = 1024 * 1024
"""Ten thousand hashes; a larger file is a mistake."""
_HASH = re.compile(r"sha256:([0-9a-f]{64})", re.IGNORECASE)
_COMMENT = re.compile(r"(?:^|\s)#.*")
_FROM_LIST, _FROM_FILE = "LUNGSEG_API_KEYS", "LUNGSEG_API_KEYS_FILE"


@dataclass(slots=True)
class Keys:
    """The keys that are known now.

    Attributes:
        fixed: SHA-256 of those that the settings name.
        file: holds further ones; None = there is none.
        from_file: SHA-256 of those, as of the last time that the file could be used.
        problem: why the file cannot be used as it is now; empty where it can.
    """

    fixed: tuple[bytes, ...] = ()
    file: Path | None = None
    from_file: tuple[bytes, ...] = ()
    problem: str = ""

    @classmethod
    def read(cls, settings: Settings) -> Keys:
        """The keys that the settings ask for.

        Raises:
            ValueError: a key is malformed, or the file cannot be read or holds no key; the sentence
                names the setting and quotes no key.
        """
        try:
            fixed = tuple(_hash(key.get_secret_value()) for key in settings.api_keys)
        except ValueError as error:
            raise ValueError(f"{_FROM_LIST}: {error}") from None
        keys = cls(fixed=fixed, file=settings.api_keys_file)
        if keys.file is not None:
            keys.from_file = _read(keys.file)
        return keys

    def __len__(self) -> int:
        """How many are known; with none, everybody may call."""
        return len({*self.fixed, *self.from_file})

    def reload(self) -> None:
        """Reads the file again; one that cannot be used changes nothing, and is said once."""
        if self.file is None or _is_pipe(self.file):
            return
        try:
            found = _read(self.file)
        except ValueError as error:
            if str(error) != self.problem:
                LOG.warning("%s; the keys known before still count", error)
            self.problem = str(error)
            return
        if found != self.from_file or self.problem:
            self.from_file, self.problem = found, ""
            LOG.info("API keys", extra={"fields": {"known": len(self)}})

    def owner(self, headers: Mapping[str, str]) -> str:
        """The id of the key that a request carries; empty where it carries none that is known."""
        key = headers.get("x-api-key") or _key_of(headers.get("authorization", ""))
        # Headers are bytes; Starlette reads them as Latin-1, and keys are UTF-8.
        digest = hashlib.sha256(key.encode("latin-1")).digest()
        # Every hash is compared, so the time tells nothing of which one matched.
        known = sum(hmac.compare_digest(digest, known) for known in (*self.fixed, *self.from_file))
        return digest.hex()[:ID_DIGITS] if key and known else ""


def _key_of(authorization: str) -> str:
    """The bearer's token, or the password of any user, for programs that can send nothing else."""
    scheme, _, said = authorization.partition(" ")
    if scheme.lower() == "basic":
        with contextlib.suppress(ValueError):
            return base64.b64decode(said).decode("latin-1").partition(":")[2]
    return said.strip() if scheme.lower() == "bearer" else ""


def _is_pipe(file: Path) -> bool:
    """Whether it can be read only once."""
    try:
        return stat.S_ISFIFO(file.stat().st_mode)
    except OSError:
        return False


def _read(file: Path) -> tuple[bytes, ...]:
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
        lines = content.decode("utf-8-sig").splitlines()
    except OSError as error:
        raise ValueError(
            f"{_FROM_FILE}: expected a file of keys, cannot read {_name(file)} "
            f"({(error.strerror or 'not readable').lower()})"
        ) from None
    except UnicodeDecodeError:
        raise ValueError(f"{_FROM_FILE}: expected text, received other bytes") from None
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"{_FROM_FILE}: expected at most {MAX_FILE_BYTES} bytes, received more")
    entries = {number: _COMMENT.sub("", line).strip() for number, line in enumerate(lines, 1)}
    if not any(entries.values()):
        raise ValueError(f"{_FROM_FILE}: expected at least one key in the file, received none")
    try:
        return tuple(_hash(entry, f" in line {at}") for at, entry in entries.items() if entry)
    except ValueError as error:
        raise ValueError(f"{_FROM_FILE}: {error}") from None


def _name(file: Path) -> str:
    """What may be said of a path: a bare name may be a key that stands in the wrong variable."""
    return str(file) if len(file.parts) > 1 else "what it names in the working folder"


def _hash(key: str, where: str = "") -> bytes:
    if key.startswith("#") or re.search(r"\s", key):
        raise ValueError(f"expected a key without blanks and # before it{where}, received others")
    if not key.lower().startswith("sha256:"):
        # Variables may hold bytes that are no UTF-8; so may headers.
        return hashlib.sha256(key.encode(errors="surrogateescape")).digest()
    if not (found := _HASH.fullmatch(key)):
        raise ValueError(f"expected 64 hexadecimal digits after sha256:{where}, received others")
    return bytes.fromhex(found[1])
