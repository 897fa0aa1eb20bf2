"""Damaged files of every kind are one error line or one failure row: see `mutations`."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from helpers import TESTS
from mutations import KINDS

COUNT = int(os.environ.get("EMBEDSTORE_MUTATIONS", "12"))
SEED = int(os.environ.get("EMBEDSTORE_SEED", "0"))
QUICK = ("csv", "tar", "vectors.npy", "head.json")


@pytest.mark.parametrize("kind", [k if k in QUICK else pytest.param(k, marks=pytest.mark.campaign) for k in KINDS])
def test_a_damaged_file_is_one_line(kind: str) -> None:
    command = [sys.executable, str(TESTS / "mutations.py"), kind, str(COUNT), str(SEED)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("; 0 problems\n"), done.stdout + done.stderr[-5000:]
