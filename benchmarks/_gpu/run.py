"""What a run of `benchmarks.gpu` finds: rows that are kept as they come, a deadline, and one table at the end.

Knows nothing of devices.
"""

from __future__ import annotations

import json
import math
import operator
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROWS = "gpu.jsonl"
DOCUMENT = "gpu.json"
TABLE = "gpu.md"
LINES = 60
"""Of the table."""
HOLDS: dict[str, Callable[[Any, Any], bool]] = {"≥": operator.ge, "≤": operator.le, "=": operator.eq}

Value = float | bool | str


class Overtime(BaseException):
    """A phase took too long; no `Exception`, so that what a phase tries does not swallow it."""


@dataclass(frozen=True)
class Row:
    """One thing that was found.

    Parameters
    ----------
    phase : str
    name : str
        What was looked at: a line of the table.
    case : str
        Which of it: a value in that line.
    value : float, bool or str
    unit : str
    op : str
        One of `HOLDS`, with `threshold`; empty where a value is only reported.
    verdict : str
        ``"ok"``, ``"FAIL"``, ``"skipped"``, or nothing where a value is only reported.
    at : float
        Seconds since the run began.
    """

    phase: str
    name: str
    case: str
    value: Value
    unit: str = ""
    op: str = ""
    threshold: Value | None = None
    verdict: str = ""
    at: float = 0.0

    def __str__(self) -> str:
        text = f"{self.case} {shown(self.value, share=not self.unit)}{self.unit}".strip()
        return f"{text} ({self.op} {shown(self.threshold)})" if self.op and self.threshold is not None else text


def shown(value: Value, *, share: bool = True) -> str:
    """A value for people; a `share` or a cosine keeps what tells it from 1."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return str(value)
    if share and 0.9 <= value < 1:
        return f"{value:.7f}".rstrip("0").rstrip(".")
    if value and abs(value) < 0.01:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.2f}"


class Run:
    """Rows, in a file as they come.

    Parameters
    ----------
    out : Path
        A folder for `ROWS`, `DOCUMENT` and `TABLE`.
    seconds : float
        How long the run may take: a phase that would take longer than what is left is skipped.
    overtime : float
        A phase is ended after this many times the seconds that it should take.
    """

    def __init__(self, out: Path, seconds: float, *, overtime: float = 2.0) -> None:
        self._out = out
        self._start = time.monotonic()
        self._deadline = self._start + seconds
        self._overtime = overtime
        self._phase = ""
        self.rows: list[Row] = []
        out.mkdir(parents=True, exist_ok=True)
        (out / ROWS).unlink(missing_ok=True)

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self._deadline - time.monotonic()

    @property
    def failed(self) -> bool:
        return any(row.verdict == "FAIL" for row in self.rows)

    def report(self, name: str, case: str, value: Value, unit: str = "") -> None:
        """A value that no threshold belongs to."""
        self._add(Row(self._phase, name, case, value, unit))

    def check(self, name: str, case: str, value: Value, op: str, threshold: Value, unit: str = "") -> None:
        """A value that has to be as `op` and `threshold` say; NaN never is."""
        verdict = "ok" if HOLDS[op](value, threshold) else "FAIL"
        self._add(Row(self._phase, name, case, value, unit, op, threshold, verdict))

    def skip(self, name: str, why: str) -> None:
        self._add(Row(self._phase, name, "", why, verdict="skipped"))

    @contextmanager
    def attempt(self, name: str, case: str = "") -> Iterator[None]:
        """What is raised inside becomes a row that failed, and the run goes on."""
        try:
            yield
        except Exception as error:
            self._add(Row(self._phase, name, case, told(error), verdict="FAIL"))

    def phase(self, phase: str, seconds: float, work: Callable[[], None]) -> None:
        """Do `work` as `phase`, unless less than the `seconds` that it should take are left.

        Raises
        ------
        KeyboardInterrupt
            After a row about it.
        """
        self._phase = phase
        if self.left < seconds:
            self.skip("", f"{max(self.left, 0):.0f} s are left, and it takes {seconds:.0f}")
            return
        began = time.monotonic()
        try:
            with self.attempt(""), limited(min(self._overtime * seconds, self.left)):
                work()
        except Overtime:
            self._add(Row(phase, "", "", f"ended after {time.monotonic() - began:.0f} s", verdict="FAIL"))
        except KeyboardInterrupt:
            self._add(Row(phase, "", "", "interrupted", verdict="FAIL"))
            raise
        finally:
            self._add(Row("", "seconds", phase, round(time.monotonic() - began, 1)))

    def lines(self, most: int = LINES) -> list[str]:
        """The table in Markdown, of at most `most` lines; what failed is never left out."""
        groups: dict[tuple[str, str], list[Row]] = {}
        for row in sorted(self.rows, key=lambda row: not row.phase):
            groups.setdefault((row.phase, row.name), []).append(row)
        head = ["| phase | what | found | |", "|---|---|---|---|"]
        lines = [_line(phase, name, rows) for (phase, name), rows in groups.items()]
        order = sorted(range(len(lines)), key=lambda i: lines[i].endswith("| FAIL |"), reverse=True)
        room = most - len(head) - (len(lines) > most - len(head))
        kept = [lines[i] for i in sorted(order[: max(room, 0)])]
        more = [f"| | {len(lines) - len(kept)} more lines are in {ROWS} | | |"] if len(kept) < len(lines) else []
        return [*head, *kept, *more]

    def close(self) -> None:
        """Write every row into one document, and the table."""
        rows = [asdict(row) for row in self.rows]
        (self._out / DOCUMENT).write_text(json.dumps({"failed": self.failed, "rows": rows}, indent=1), encoding="utf-8")
        (self._out / TABLE).write_text("\n".join([*self.lines(), ""]), encoding="utf-8")

    def _add(self, row: Row) -> None:
        row = Row(**{**asdict(row), "at": round(time.monotonic() - self._start, 1)})
        self.rows.append(row)
        with open(self._out / ROWS, "a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
        print(f"{row.at:7.1f} s  {row.phase:3} {row.name}: {row}  {row.verdict}".rstrip(), flush=True)


def _line(phase: str, name: str, rows: list[Row]) -> str:
    verdicts = {row.verdict for row in rows}
    verdict = next((v for v in ("FAIL", "skipped", "ok") if v in verdicts), "")
    failed = [f"**{row}**" if row.verdict == "FAIL" else str(row) for row in rows]
    return f"| {phase} | {name} | {'; '.join(failed)} | {verdict} |".replace("\n", " ")


def told(error: BaseException) -> str:
    """An error in one line, with the last frame that it went through."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}{where}".replace("|", "/")


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `Overtime` inside after `seconds`; in the main thread, where no other alarm is set."""
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getitimer(signal.ITIMER_REAL)[0]:
        yield
        return

    def end(number: int, frame: object) -> None:
        raise Overtime

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
