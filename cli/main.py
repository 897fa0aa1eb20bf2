"""The application and its exit codes: 0 done, 1 failed, 2 usage."""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import Annotated

import typer

from . import interrupts, streams
from .align import align
from .compact import compact
from .compare import compare
from .dedup import dedup
from .demo import demo
from .embed import embed
from .encoders import encoders
from .eval_search import eval_search
from .evaluate import evaluate
from .examples import epilog
from .export import export
from .export_head import export_head
from .heads import heads
from .import_ import import_vectors
from .index import index
from .info import info
from .labels import labels
from .metavars import PlainHelp, with_metavars
from .plugin_help import WithDatasets, WithHeads, WithTargets
from .predict import predict
from .remove import remove
from .repair import repair
from .search import search
from .select import select
from .serve import serve
from .train import train
from .verify import verify

HELP = """Embed a dataset once, train heads on it in seconds, search it in milliseconds.

A store is a folder: items, their vectors (HDF5) and the heads trained on them. Start with: embedstore demo"""

INTERRUPTED = 130  # what typer makes of Ctrl-C
DEBUG = "EMBEDSTORE_DEBUG"
"""Environment variable: errors that nobody expected come with their traceback."""

app = typer.Typer(
    help=HELP,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

COMMANDS = (
    *(demo, embed, import_vectors, info, index, search, train, evaluate, predict, compare, labels, select, align),
    *(heads, export_head, eval_search, dedup, export, verify, repair, remove, compact, serve, encoders),
)
"""In the order in which help lists them; each parses, calls the library and prints, and imports what it needs inside."""
UNASKED = ("embedstore-sql", "embedstore-serve")
"""Threads that no exit waits for: a function of DuckDB that never looks up; a map that is made when the server ends."""
PLUGINS = {embed: WithDatasets, train: WithHeads, export: WithTargets}
"""Commands whose help lists what other packages may add to."""

for _command in COMMANDS:
    _name = _command.__name__.replace("_", "-")
    app.command(
        _name, cls=PLUGINS.get(_command, PlainHelp), no_args_is_help=_command not in (demo, encoders), epilog=epilog(_name)
    )(with_metavars(_command, _name))


def _print_version(asked: bool) -> None:
    if asked:
        from embedstore._version import __version__

        typer.echo(f"embedstore {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point: expected errors are one line on stderr."""
    streams.prepare()
    interrupts.prepare()
    code = _run()
    try:
        sys.stdout.flush()
    except OSError as error:  # a full disk, where stdout is a file
        code = _failed(error)
    sys.stderr.flush()
    if any(thread.name.startswith(UNASKED) for thread in threading.enumerate()):
        os._exit(code)
    sys.exit(code)


def _run() -> int:
    """Run the command that was typed; its exit code."""
    from embedstore._core.arguments import strings
    from embedstore.errors import EmbedstoreError, UsageError

    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # its own keeps several times what is in use at once
    try:
        strings(sys.argv, "arguments")
        _log_to_stderr()
        app()
    except EmbedstoreError as error:
        streams.say(f"embedstore: {error}", stderr=True)
        for note in getattr(error, "__notes__", ()):
            streams.say(f"  {note}", stderr=True)
        return 2 if isinstance(error, UsageError) else 1
    except OSError as error:
        return _failed(error)
    except MemoryError as error:
        return _out_of_memory(error)
    except SystemExit as exit_:
        if exit_.code == INTERRUPTED:
            return _interrupted()
        return exit_.code if isinstance(exit_.code, int) else 0
    except KeyboardInterrupt:
        return _interrupted()
    except BaseException as error:  # a bug, here or in a library: a panic of Rust code is no Exception
        return _unexpected(error)
    return 0


def _interrupted() -> int:
    """What Ctrl-C and SIGTERM end in; another one kills the process, which loses nothing that was committed."""
    interrupts.done()
    streams.say("embedstore: interrupted; what was committed is kept. Run the same command to go on.", stderr=True)
    return 1


def _out_of_memory(error: MemoryError) -> int:
    from embedstore.errors import one_line

    if os.environ.get(DEBUG):
        raise error
    needed = f" ({one_line(error, 200)})" if str(error) else ""
    streams.say(
        f"embedstore: not enough memory{needed}. Close other programs, or give the command less at a time; "
        "what was committed is kept.",
        stderr=True,
    )
    return 1


def _unexpected(error: BaseException) -> int:
    """An error that nobody expected, on one line; its traceback where it is asked for."""
    from embedstore.errors import one_line

    if os.environ.get(DEBUG):
        raise error
    said = one_line(error) if str(error) else "no reason given"
    streams.say(
        f"embedstore: {type(error).__name__}: {said} This was not expected: a bug, or a file damaged in a new way. "
        f"{DEBUG}=1 shows where it happened.",
        stderr=True,
    )
    return 1


def _failed(error: OSError) -> int:
    """The operating system's reason on one line, and what to do about it."""
    from embedstore.errors import next_step, reason_of

    streams.say(f"embedstore: {error.filename or 'a file'}: {reason_of(error)}.{next_step(error)}", stderr=True)
    return 1


class _Lines(logging.Handler):
    """What takes long without progress is said as it begins, one line a record."""

    def emit(self, record: logging.LogRecord) -> None:
        streams.say(record.getMessage(), stderr=True)


def _log_to_stderr() -> None:
    log = logging.getLogger("embedstore")
    log.addHandler(_Lines())
    log.setLevel(logging.INFO)


if __name__ == "__main__":
    main()
