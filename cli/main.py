"""The application and its exit codes: 0 done, 1 failed, 2 usage."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from . import commands

HELP = """Embed a dataset once, train heads on it in seconds, search it in milliseconds.

A store is a folder: items, their vectors (HDF5) and the heads trained on them. Start with: embedstore demo"""

INTERRUPTED = 130  # what typer makes of Ctrl-C

app = typer.Typer(
    help=HELP,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
commands.register(app)


def _print_version(asked: bool) -> None:
    if asked:
        from embedstore import __version__

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
    from embedstore._arguments import strings
    from embedstore.errors import EmbedstoreError, UsageError, reason_of

    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # its own keeps several times what is in use at once
    try:
        strings(sys.argv, "arguments")
        _log_to_stderr()
        app()
    except EmbedstoreError as error:
        sys.stderr.write(f"embedstore: {error}\n")
        for note in getattr(error, "__notes__", ()):
            sys.stderr.write(f"  {note}\n")
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        sys.stderr.write(f"embedstore: {error.filename or 'a file'}: {reason_of(error)}.\n")
        sys.exit(1)
    except SystemExit as exit_:
        if exit_.code == INTERRUPTED:
            sys.stderr.write("embedstore: interrupted; what was committed is kept. Run the same command to go on.\n")
            sys.exit(1)
        raise


def _log_to_stderr() -> None:
    """What takes long without progress is said as it begins."""
    import logging

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("embedstore")
    log.addHandler(handler)
    log.setLevel(logging.INFO)


if __name__ == "__main__":
    main()
