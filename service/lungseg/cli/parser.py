"""The parser of the command line: argparse, with values that begin with a minus."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any


class Parser(argparse.ArgumentParser):
    """Takes as an option's value also what begins with a minus, unless that is an option itself.

    argparse alone takes ``-1350,150`` for an option, and refuses ``--window-hu -1350,150``.
    """

    later: Callable[[argparse.ArgumentParser], None] | None = None
    """Adds the options when the command is called, and not for whoever calls another."""

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride] - one for all overloads
        self, args: Iterable[str] | None = None, namespace: Any = None
    ) -> Any:
        """As argparse's, after joining values that begin with a minus to their options."""
        if self.later is not None:
            self.later(self)
            self.later = None
        words = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(self._joined(words), namespace)

    def _joined(self, words: Sequence[str]) -> list[str]:
        options = {name for action in self._actions for name in action.option_strings}
        joined: list[str] = []
        for place, word in enumerate(words):
            if word == "--":
                return [*joined, *words[place:]]
            is_option = word.startswith("--") or word.partition("=")[0] in options
            is_value = word.startswith("-") and not is_option
            if is_value and joined and self._takes_a_value(joined[-1]):
                joined[-1] += f"={word}"
            else:
                joined.append(word)
        return joined

    def _takes_a_value(self, word: str) -> bool:
        """Whether a word is an option, written out or shortened, that waits for its value."""
        if not word.startswith("-") or "=" in word:
            return False
        exact = [action for action in self._actions if word in action.option_strings]
        meant = exact or [
            action
            for action in self._actions
            for name in action.option_strings
            if word.startswith("--") and name.startswith(word)
        ]
        return len(meant) == 1 and meant[0].nargs is None
