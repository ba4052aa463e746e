"""``lungseg dicomweb``: CT series of an archive segmented, and the results stored beside them."""

from __future__ import annotations

import argparse
import signal
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import parse_qsl

from lungseg.cli.errors import OK, SOME_FAILED, UsageError
from lungseg.cli.options import add_parameters, add_place, check_place, parameters_of
from lungseg.cli.places import Question, here, there
from lungseg.cli.streams import write_output
from lungseg.cli.volume import ask
from lungseg.integrations.dicomweb.archive import UID, Archive, Refused
from lungseg.integrations.dicomweb.roots import Root, Roots, read_roots
from lungseg.integrations.dicomweb.state import FAILED, State
from lungseg.integrations.dicomweb.work import Worker
from lungseg.query import ModelQuery

FORMS = ("dicom-seg", "dicom-sr")


def add_to(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add, what = parser.add_argument, parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--study", type=_uid, metavar="UID", help="work on its series, once")
    text = "work on the studies that match, for ever: a query such as 'ModalitiesInStudy=CT'"
    what.add_argument("--watch", type=_query, metavar="FILTER", help=text)
    what.add_argument("--status", action="store_true", help="list what is not done")
    add("--series", type=_uid, metavar="UID", help="of the study this series alone")
    add("--root", metavar="NAME", help="the archive of this name in the settings")
    text = "file of archives and of their state (default: dicomweb.toml)"
    add("--settings", type=Path, metavar="FILE", default="dicomweb.toml", help=text)
    add("--dry-run", action="store_true", help="retrieve and compute, but store nothing")
    add_place(parser)
    add_parameters(parser, ModelQuery, without=("threshold",))
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Works on a study, watches, or tells; returns the exit code.

    Raises:
        UsageError: nothing can be done at all, or no more.
    """
    settings = read_roots(options.settings)
    if options.status:
        return _tell(State(settings.state))
    check_place(options)
    root = _root(settings, options)
    asked = {**parameters_of(options, ModelQuery), "forms": FORMS}
    question = Question(ask=ask, forms=FORMS, parameters=asked, volumes=True)
    with ExitStack() as stack:
        if options.url is None:
            place = here(question, models_dir=options.models_dir)
        else:
            place = stack.enter_context(there(question, url=options.url))
        state = State(None if options.dry_run else settings.state)
        worker = Worker(
            name=options.root,
            root=root,
            archive=Archive(root),
            place=place,
            state=state,
            dry=options.dry_run,
        )
        try:
            if options.study is not None:
                return worker.finish(options.study, options.series)
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            worker.watch(options.watch)
        except Refused as error:
            raise UsageError(f"{options.root}: {error}") from None


def _root(settings: Roots, options: argparse.Namespace) -> Root:
    root = settings.roots.get(options.root)
    if root is None:
        raise UsageError(f"--root: expected one of {', '.join(settings.roots)}, received another")
    if options.series and not options.study:
        raise UsageError("--series is of one study: --study")
    for name, wanted in (("read", True), ("write", not options.dry_run)):
        if wanted and not getattr(root, name):
            raise UsageError(f"{options.settings}: {name} = true in {options.root} allows this")
    return root


def _tell(state: State) -> int:
    """Prints what is not done, and how much is in each state."""
    counts = state.counts()
    lines = ["\t".join(map(str, row)) for row in state.left()]
    lines.append(", ".join(f"{number} {name}" for name, number in counts.items()))
    write_output("".join(f"{line}\n" for line in lines).encode())
    return SOME_FAILED if counts[FAILED] else OK


def _uid(text: str) -> str:
    if not UID.fullmatch(text):
        raise argparse.ArgumentTypeError("expected a UID of digits and points")
    return text


def _query(text: str) -> dict[str, str]:
    found = dict(parse_qsl(text, keep_blank_values=True))
    if not found or not all(name.isalnum() and value for name, value in found.items()):
        raise argparse.ArgumentTypeError("expected a query such as ModalitiesInStudy=CT")
    return found
