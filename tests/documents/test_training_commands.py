"""Commands of the training subproject stand in the documents as its command line takes them."""

from __future__ import annotations

import re
import shlex

import pytest

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.training

from tests.documents.test_pages import PAGES, text_of  # noqa: E402 - nothing before the skip
from training.__main__ import _parser  # noqa: E402


def shown(page: str) -> list[str]:
    """Whole commands, from blocks and running text, but for what is left open or asks for help."""
    text = text_of(page).replace("\\\n", " ")
    found = re.findall(r"(?:^|`)python -m training ([a-z]+ [^`\n]*?)(?:  +#.*)?(?:`|$)", text, re.M)
    return [command.partition(" #")[0] for command in found if not re.search("…|--help", command)]


PAGES_OF_TRAINING = ["training/EXPERIMENTS.md", "training/labels/README.md"]
COMMANDS = [command for page in (*PAGES, *PAGES_OF_TRAINING) for command in shown(page)]


def test_the_commands_are_found() -> None:
    """An edit that hides them from the test below fails here."""
    assert len(COMMANDS) >= 15


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_understood(command: str) -> None:
    """Its name, its flags and their values; a command line error ends the program."""
    assert callable(_parser().parse_args(shlex.split(command)).command)
