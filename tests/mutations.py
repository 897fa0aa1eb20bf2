"""Small valid files, damaged at random, given to embedstore: it ends with 0, 1 or 2 and one line, in bounded time and memory.

Each attempt runs in a fork of a process that has imported everything, so that thousands take minutes::

    python tests/mutations.py KIND [COUNT] [SEED]
"""

from __future__ import annotations

import contextlib
import gzip
import importlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tarfile
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MEMORY = 6 << 30
SECONDS = 60
UNEXPECTED = "This was not expected"

Interesting = [
    b"\x00", b"\xff", b"\x7f", b"\x80", b"-1", b"1e999", b"NaN", b"\xff" * 4, b"\xff" * 8, b"\x7f" + b"\xff" * 7,
    b"\x00" * 8, b"9" * 30, b"\n", b"\r", b'"', b"\x00\x00\x00\x80", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"{" * 40,
    b"[" * 40, b"null",
]  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` with one to four damages: flips, other bytes, cuts, copies, and values that headers do not expect."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(changed)) if changed else 0
        if rng.random() < 0.5:  # headers are at either end
            at = rng.choice((min(at, rng.randrange(256)), max(len(changed) - 1 - rng.randrange(512), 0)))
            at = min(at, max(len(changed) - 1, 0))
        kind = rng.randrange(7)
        if kind == 0 and changed:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and changed:
            changed[at] = rng.randrange(256)
        elif kind == 2:
            del changed[at : at + rng.randrange(1, 17)]
        elif kind == 3:
            changed[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif kind == 4:
            value = rng.choice(Interesting)
            changed[at : at + (len(value) if rng.random() < 0.7 else 0)] = value
        elif kind == 5:
            other = rng.randrange(len(changed) + 1)
            changed[at : at + 16] = changed[other : other + 16]
        elif rng.random() < 0.5:
            del changed[at:]
        else:
            changed[at:at] = changed[at : at + rng.randrange(1, 257)]
    return bytes(changed)


@dataclass(frozen=True)
class Outcome:
    """What became of one attempt; `problem` is empty where all is as it should be."""

    code: int
    said: str
    problem: str


def attempt(action: Callable[[], None], *, memory: int = MEMORY, seconds: int = SECONDS) -> Outcome:
    """Run `action` in a fork; its output, how it ended, and what of that should not be."""
    with tempfile.TemporaryFile() as told:
        pid = os.fork()
        if not pid:
            _child(action, told.fileno(), memory, seconds)
        _, status = os.waitpid(pid, 0)
        told.seek(0)
        said = told.read().decode(errors="replace")
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return Outcome(-os.WTERMSIG(status), said, f"signal {name}" if name != "SIGALRM" else f"not done in {seconds} s")
    code = os.WEXITSTATUS(status)
    return Outcome(code, said, _problem(code, said))


def _problem(code: int, said: str) -> str:
    if code not in (0, 1, 2):
        return f"exit code {code}"
    if "Traceback" in said:
        return "traceback"
    if UNEXPECTED in said:
        return "unexpected"
    lines = [line for line in said.splitlines() if line.startswith("embedstore: ")]
    return "" if len(lines) == (code != 0) else f"{len(lines)} error lines with exit code {code}"


def _child(action: Callable[[], None], output: int, memory: int, seconds: int) -> None:
    """Never returns."""
    code = 99
    try:
        os.environ.pop("EMBEDSTORE_DEBUG", None)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = (open(fd, "w", encoding="utf-8", closefd=False) for fd in (1, 2))  # noqa: SIM115
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        try:
            action()
            code = 0
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 0 if exit_.code is None else 1
        except BaseException:
            traceback.print_exc()
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
    finally:
        os._exit(code)


def command(*words: object) -> Callable[[], None]:
    """The command line, as a user types it."""

    def run() -> None:
        from embedstore_cli import interrupts, main

        sys.argv = ["embedstore", *map(str, words)]
        interrupts.prepare = lambda: None  # the alarm of an attempt is its own
        main.main()

    return run


@dataclass(frozen=True)
class Kind:
    """Files of one kind: how a valid one is made in a folder, and what is done with a damaged one.

    Parameters
    ----------
    make : callable
        Folder → the file to damage.
    act : callable
        Folder (with a damaged file) → what to run. Each attempt has a folder of its own.
    mend : callable, optional
        Makes what guards the file fit it again, as somebody who means harm would.
    """

    make: Callable[[Path], Path]
    act: Callable[[Path, Path], Callable[[], None]]
    mend: Callable[[Path, Path], None] = lambda folder, file: None


Say = Callable[[str], None]


def campaign(kind: Kind, count: int, seed: int, say: Say = lambda line: None) -> tuple[Counter[str], list[str]]:
    """`count` attempts; how they ended, and the problems, each with what reproduces it."""
    ended: Counter[str] = Counter()
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as home:
        whole = Path(home) / "whole"
        whole.mkdir()
        os.environ["XDG_CACHE_HOME"] = str(Path(home) / "cache")
        file = kind.make(whole)
        data = file.read_bytes()
        _import_what_it_imports(kind, Path(shutil.copytree(whole, Path(home) / "first")), file.relative_to(whole))
        for number in range(count):
            rng = random.Random(f"{seed} {number}")
            folder = Path(shutil.copytree(whole, Path(home) / "attempt"))
            target = folder / file.relative_to(whole)
            target.write_bytes(mutated(data, rng))
            kind.mend(folder, target)
            outcome = attempt(kind.act(folder, target))
            ended[outcome.problem or f"exit {outcome.code}"] += 1
            if outcome.problem:
                problems.append(f"seed {seed}, number {number}: {outcome.problem}: {outcome.said[-1500:]}")
                say(problems[-1])
            shutil.rmtree(folder)
    return ended, problems


def _import_what_it_imports(kind: Kind, folder: Path, file: Path) -> None:
    """Run on the whole file in a child, then import here what the child imported, so that no attempt has to."""
    noted = folder / "modules"

    def action() -> None:
        try:
            kind.act(folder, folder / file)()
        finally:
            noted.write_text("\n".join(sys.modules))

    outcome = attempt(action)
    assert outcome.code == 0, outcome.said
    for name in noted.read_text().split("\n"):
        with contextlib.suppress(Exception):
            importlib.import_module(name)


# what is damaged


def _rows(n: int = 40) -> list[dict[str, object]]:
    return [{"id": f"i{i}", "text": f"words {i}", "label": "ab"[i % 2], "price": i * 1.5, "n": i} for i in range(n)]


def _table(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import pyarrow as pa
        import pyarrow.csv as pc
        import pyarrow.feather as pf
        import pyarrow.parquet as pq

        path, table = folder / name, pa.Table.from_pylist(_rows())
        if path.suffix == ".parquet":
            pq.write_table(table, path, compression="zstd")
        elif path.suffix == ".arrow":
            pf.write_feather(table, path, compression="uncompressed")
        elif path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in _rows()))
        else:
            pc.write_csv(table, path, pc.WriteOptions(delimiter="\t" if path.suffix == ".tsv" else ","))
        return path

    return make


def _embed(folder: Path, file: Path) -> Callable[[], None]:
    return command("embed", file, "--store", folder / "s", "--text", "hash:8")


def _embed_images(folder: Path, file: Path) -> Callable[[], None]:
    return command("embed", file, "--store", folder / "s", "--image", "hash:8", "--text", "hash:8")


def _tar(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        from PIL import Image

        picture, plain = io.BytesIO(), io.BytesIO()
        Image.new("RGB", (8, 8), "red").save(picture, "PNG")
        with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for i in range(6):
                long = "x" * 120 if i == 3 else ""  # a name that needs an extended header
                for ending, content in (
                    ("png", picture.getvalue()),
                    ("txt", b"words"),
                    ("json", json.dumps({"n": i, "deep": {"a": [1]}}).encode()),
                ):
                    member = tarfile.TarInfo(f"k{i}{long}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        data = plain.getvalue()
        path = folder / name
        if name.endswith(".gz"):
            data = gzip.compress(data)
        elif name.endswith(".zst"):
            import pyarrow as pa

            data = pa.Codec("zstd").compress(data, asbytes=True)
        path.write_bytes(data)
        return path

    return make


def _vectors(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import h5py
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = folder / name
        values = np.random.default_rng(0).normal(size=(24, 6)).astype(np.float32)
        ids = np.asarray([f"i{i}" for i in range(24)])
        if path.suffix == ".npy":
            np.save(path, values)
        elif path.suffix == ".npz":
            np.savez(path, vectors=values, ids=ids)
        elif path.suffix == ".h5":
            with h5py.File(path, "w") as file:
                file.create_dataset("vectors", data=values, chunks=(8, 6), compression="gzip")
                file["id"] = ids.astype("S4")
        elif path.suffix == ".parquet":
            pq.write_table(pa.table({"id": ids.tolist(), "embedding": list(values), "n": list(range(24))}), path)
        else:
            lines = [json.dumps({"id": i, "embedding": v.tolist()}) for i, v in zip(ids, values, strict=True)]
            path.write_text("\n".join(lines))
        return path

    return make


def _import(folder: Path, file: Path) -> Callable[[], None]:
    return command("import", file, folder / "s", "--modality", "text")


def _picture(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        from PIL import Image

        pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        path = folder / name
        Image.fromarray(pixels).save(path)
        return path

    return make


def _decode(folder: Path, file: Path) -> Callable[[], None]:
    def run() -> None:
        from embedstore.encoders.payloads.images import decode_rgb
        from embedstore.errors import PayloadError

        with contextlib.suppress(PayloadError):
            decode_rgb(file.read_bytes(), max_pixels=178_956_970)

    return run


def _store(folder: Path) -> Path:
    import embedstore as es

    rows = _rows(60)
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    es.embed(data, folder / "s", text="hash:8")
    data.unlink()
    return folder / "s"


def _query(folder: Path) -> Path:
    from embedstore import QueryVector

    _store(folder)
    QueryVector(np.arange(1.0, 9.0)).save(folder / "q.npz")
    return folder / "q.npz"


def _head(kind: str, pattern: str, **options: object) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import embedstore as es

        store = _store(folder)
        es.train(es.Store.open(store), "label", head=kind, report=False, seeds=1, **options)  # type: ignore[arg-type]
        return next((store / "heads" / "label").glob(pattern))

    return make


def _seal_head(folder: Path, file: Path) -> None:
    """Digests that fit: of a file in the document that names it, of the document in itself."""
    import hashlib

    path = file.parent / "head.json"
    _sealed(path, file, lambda entry: entry.update(sha256=hashlib.sha256(file.read_bytes()).hexdigest()))


def _sealed(path: Path, file: Path, change: Callable[[dict[str, object]], None]) -> None:
    from embedstore._core.encoding import digest_of

    try:
        document = json.loads(path.read_bytes())
        for entry in document["files"].values():
            if entry["file"] == file.name:
                change(entry)
        if "digest" in document:
            document["digest"] = digest_of(document)
        path.write_text(json.dumps(document))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass  # damaged beyond that


def _predict(folder: Path, file: Path) -> Callable[[], None]:
    return command("predict", folder / "s", "label", "--json")


def _index(pattern: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import embedstore as es

        store = _store(folder)
        es.index(es.Store.open(store), "text", factory="HNSW16,Flat")
        return next((store / "spaces" / "text" / "index").glob(pattern))

    return make


def _seal_index(folder: Path, file: Path) -> None:
    import hashlib

    data = file.read_bytes()
    changes = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    _sealed(file.parent / "index.json", file, lambda entry: entry.update(changes))


def _search(folder: Path, file: Path) -> Callable[[], None]:
    return command("search", folder / "s", "--id", "i1")


KINDS: dict[str, Kind] = {
    **{ending: Kind(_table(f"t.{ending}"), _embed) for ending in ("csv", "tsv", "jsonl", "parquet", "arrow")},
    **{ending: Kind(_tar(f"t.{ending}"), _embed_images) for ending in ("tar", "tar.gz", "tar.zst")},
    **{f"vectors.{ending}": Kind(_vectors(f"v.{ending}"), _import) for ending in ("npy", "npz", "h5", "parquet", "jsonl")},
    **{ending: Kind(_picture(f"p.{ending}"), _decode) for ending in ("png", "jpg", "webp", "tif", "gif", "bmp", "jp2", "avif")},
    "query.npz": Kind(_query, lambda folder, file: command("search", folder / "s", "--vector", file)),
    "head.json": Kind(_head("linear", "head.json"), _predict, _seal_head),
    "weights.safetensors": Kind(_head("linear", "*.safetensors"), _predict, _seal_head),
    "gated.safetensors": Kind(_head("gated", "*.safetensors"), _predict, _seal_head),
    "index.json": Kind(_index("index.json"), _search, _seal_index),
    "index.faiss": Kind(_index("base-*.faiss"), _search, _seal_index),
}


def warm_up() -> None:
    """Import what attempts need, without starting a thread."""
    import duckdb  # noqa: F401
    import embedstore_cli.main  # noqa: F401
    import faiss  # noqa: F401
    import h5py  # noqa: F401
    import PIL.Image
    import pyarrow.parquet  # noqa: F401

    PIL.Image.init()


def main() -> None:
    words = sys.argv[1:]
    count, seed = (int(words[1]) if len(words) > 1 else 1000), (int(words[2]) if len(words) > 2 else 0)
    warm_up()
    for name in KINDS if words[0] == "all" else words[0].split(","):
        ended, problems = campaign(KINDS[name], count, seed, lambda line: sys.stderr.write(line + "\n"))
        sys.stdout.write(f"{name}: {dict(ended)}; {len(problems)} problems\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
