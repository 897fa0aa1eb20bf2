"""Ctrl-C and SIGTERM: one `KeyboardInterrupt` in the main thread, which no destructor or callback of a library swallows."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any, NoReturn

AGAIN = 0.05
"""Seconds after which an interruption that was swallowed comes again."""

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_SEEN = [False]


def prepare() -> None:
    """Answer SIGTERM as Ctrl-C, unless whoever started this process has it ignored."""
    for number in _NUMBERS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _interrupt)
    signal.signal(signal.SIGALRM, _interrupt)
    sys.unraisablehook = _unraisable


def done() -> None:
    """From now on either signal ends the process at once."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number in _NUMBERS:
        if signal.getsignal(number) == _interrupt:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    _SEEN[0] = True
    raise KeyboardInterrupt


def _unraisable(told: Any) -> None:
    """What a destructor or a callback raised: after an interruption, libraries stumble over what they had half made."""
    if isinstance(told.exc_value, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, AGAIN)  # not from here, where it would be swallowed again
    elif not _SEEN[0]:
        sys.__unraisablehook__(told)
