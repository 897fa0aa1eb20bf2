"""Saving and loading heads: ``head.json``, safetensors and XGBoost's UBJSON; no pickle. A linear head loads without torch.

A head's folder holds what ``head.json`` names; it is replaced last, so a reader sees the old head or the new one. All that is
read of a head is read at once, of one ``head.json``: see `read_generation`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from embedstore._core.atomic_files import json_bytes, named_files, of_one_generation, parquet_table, read_json
from embedstore._core.encoding import encoding, open_sealed, sealed
from embedstore._core.folders import Folder, readable, split_root
from embedstore._core.locks import locked
from embedstore._core.metadata_features import METADATA, ColumnEncoder
from embedstore.errors import CorruptStoreError, EmbedstoreError, HeadError, UsageError, one_line
from embedstore.evaluation.bootstrap import Score
from embedstore.heads.base import Head, HeadState
from embedstore.heads.make import head_class, params_of
from embedstore.spec import EncoderSpec

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa

HEAD = "head.json"
WEIGHTS = "weights.safetensors"
SPLIT = "split.parquet"
OUT_OF_FOLD = "out-of-fold.parquet"
"""Of one target; of several see `out_of_fold_file`."""
TUNING = "tuning.jsonl"
"""The journal of tuning, which a later run goes on with: ``head.json`` does not name it, and saving a head leaves it alone."""
PAGE = "report.html"
DEPTH = 2
"""A head's folder is ``heads/NAME`` of a store: below that store no link is followed."""
ALIGN = "align"
"""The kind of head that `heads.aligner_io` reads."""


Record = TypeVar("Record")


@dataclass(frozen=True)
class HeadRecord:
    """A saved head and what it was trained on.

    Parameters
    ----------
    name, target : str
    inputs : mapping of input (space) name to EncoderSpec
        Vectors of another fingerprint are refused.
    head : Head
    report : mapping
        Scores, baselines, split sizes; as JSON.
    columns : ColumnEncoder or None
        How metadata columns become the input ``"metadata"``, if the head takes them.
    split : bytes or None
        The ``split.parquet`` that was saved with it; see `read_split`.
    """

    name: str
    target: str
    inputs: Mapping[str, EncoderSpec]
    head: Head
    report: Mapping[str, Any] = field(default_factory=dict)
    columns: ColumnEncoder | None = None
    split: bytes | None = field(default=None, repr=False)


def out_of_fold_file(part: int | None = None) -> str:
    """What the file of out-of-fold predictions is called: of the only target, or of that at position `part`."""
    return OUT_OF_FOLD if part is None else OUT_OF_FOLD.replace(".", f".{part}.")


def save_head(
    folder: Path, record: HeadRecord, extra: Mapping[str, bytes], *, page: bytes | None = None, replacing: bool = True
) -> None:
    """Write `record` to `folder`, with `extra` files beside it (name → bytes), and `page` for people as ``report.html``.

    Raises
    ------
    HeadError
        An alignment stands there, or unless `replacing` any head.
    """
    with changing(folder) as opened:  # one may have been saved since training began
        refuse_alignment(folder)
        if not replacing:
            refuse_taken(folder)
        _save(opened, record, extra)
        if page is None:
            opened.unlink(PAGE)
        else:
            opened.write(PAGE, page)


@contextmanager
def changing(folder: Path) -> Iterator[Folder]:
    """The folder of a head, made where it is not there, for one process at a time."""
    root, names = split_root(folder, DEPTH)
    *above, name = names
    with (
        Folder.below(root, *above, create=True) as home,
        locked(home, f".{name}.lock"),
        home.child(name, create=True) as opened,
    ):
        yield opened


def _save(folder: Folder, record: HeadRecord, extra: Mapping[str, bytes]) -> None:
    state = record.head.state()
    document = {
        **encoding("embedstore-head"),
        "name": record.name,
        "kind": record.head.kind,
        "params": params_of(record.head),
        "target": record.target,
        "inputs": {name: {"fingerprint": s.fingerprint, "encoder": s.to_dict()} for name, s in record.inputs.items()},
        "columns": None if record.columns is None else record.columns.to_dict(),
        "state": state.config,
        "report": dict(record.report),
    }
    write_files(folder, document, state, extra)


def write_files(folder: Folder, document: Mapping[str, Any], state: HeadState, extra: Mapping[str, bytes]) -> None:
    """Write a head's tensors and files, then `document`, which names them, as ``head.json``; remove what it does not name."""
    from safetensors.numpy import save

    weights = save({name: np.ascontiguousarray(value) for name, value in state.tensors.items()})
    files = {}
    for name, data in {WEIGHTS: weights, **state.files, **extra}.items():
        digest = hashlib.sha256(data).hexdigest()
        stem, dot, suffix = name.rpartition(".")
        stored = f"{stem}-{digest[:12]}{dot}{suffix}"
        folder.write(stored, data)
        files[name] = {"file": stored, "sha256": digest}
    folder.write(HEAD, json_bytes(sealed({**document, "files": files})))
    keep = {HEAD, PAGE, TUNING, *(entry["file"] for entry in files.values())}
    for name in folder.listing()[0]:
        if name not in keep:
            folder.unlink(name)


def load_head(folder: Path) -> HeadRecord:
    """The head in `folder`, its files compared with their digests.

    Raises
    ------
    UsageError
        A kind that this embedstore does not know.
    CorruptStoreError
    """
    return read_generation(folder, _accept, _restore)


def read_generation(
    folder: Path,
    accept: Callable[[Path, Mapping[str, Any]], None],
    restore: Callable[[Path, Mapping[str, Any], dict[str, bytes]], Record],
) -> Record:
    """What `restore` makes of ``head.json`` and the contents of the files that it names, by role.

    Out-of-fold predictions, which may be larger than all the rest, are not read. `accept` may refuse the document before. A
    head may be replaced while it is read: all its files are opened before any is read, and where one is gone already, the head
    that is there now is read instead.

    Raises
    ------
    CorruptStoreError
    """

    def restored(document: Mapping[str, Any]) -> Record:
        document = open_sealed(document, "embedstore-head", str(folder / HEAD), _again(document))
        try:
            accept(folder, document)
            roles = named_files(document, folder / HEAD)
            small = [role for role in roles if not role.startswith(OUT_OF_FOLD.partition(".")[0])]
            return restore(folder, document, _contents(folder, document, small))
        except (EmbedstoreError, OSError):
            raise
        except Exception as error:  # whatever a library says of values that no head has
            said = one_line(repr(error), 200)
            raise CorruptStoreError(f"{folder / HEAD} is damaged ({said}). {_again(document)}") from error

    return of_one_generation(lambda: read_head(folder), restored)


def read_files(folder: Path, roles: Collection[str]) -> dict[str, bytes]:
    """The contents of those files of a head that play one of `roles`, by role; a role that no file plays is left out.

    Raises
    ------
    CorruptStoreError
    """

    def contents(document: Mapping[str, Any]) -> dict[str, bytes]:
        document = open_sealed(document, "embedstore-head", str(folder / HEAD), _again(document))
        return _contents(folder, document, roles)

    return of_one_generation(lambda: read_head(folder), contents)


def read_head(folder: Path) -> dict[str, Any]:
    """``head.json`` of a head of any kind."""
    root, names = split_root(folder, DEPTH)
    return read_json(root.joinpath(*names, HEAD), root)


def _again(document: Mapping[str, Any]) -> str:
    return "Align the spaces again." if document.get("kind") == ALIGN else "Train the head again, with --replace."


def _contents(folder: Path, document: Mapping[str, Any], roles: Collection[str]) -> dict[str, bytes]:
    """The contents of a head's files that play one of `roles`, by role, each compared with its digest."""
    files = {role: entry for role, entry in named_files(document, folder / HEAD).items() if role in roles}
    with readable(folder), ExitStack() as stack:
        try:
            opened = stack.enter_context(Folder.last(folder, DEPTH))
            handles = {role: stack.enter_context(opened.open(entry["file"])) for role, entry in files.items()}
        except FileNotFoundError as error:
            raise CorruptStoreError(f"{error.filename} is missing. {_again(document)}") from error
        contents = {role: handle.read() for role, handle in handles.items()}
    for role, data in contents.items():
        if hashlib.sha256(data).hexdigest() != files[role].get("sha256"):
            raise CorruptStoreError(f"{folder / files[role]['file']} differs from what was saved. {_again(document)}")
    return contents


def kind_of(folder: Path) -> str | None:
    """The kind of the head in `folder`; None where there is none."""
    try:
        with readable(folder), Folder.last(folder, DEPTH) as opened:
            opened.listing()  # something strange in it is told before a head is trained
            return str(read_head(folder).get("kind")) if opened.has(HEAD) else None
    except FileNotFoundError:
        return None


def refuse_alignment(folder: Path) -> None:
    """Raise `HeadError` where the head in `folder` is one that search uses: no other replaces it."""
    if kind_of(folder) == ALIGN:
        raise HeadError(f"{folder} is an alignment, which search uses, and is not replaced. Choose another name: --name NAME.")


def refuse_taken(folder: Path) -> None:
    """Raise `HeadError` where a head that can be read stands in `folder`."""
    if standing := standing_head(folder):
        raise HeadError(f"{standing} is there already. Train over it: --replace. Keep both: --name NAME.")


def replaced_note(folder: Path) -> str | None:
    """What a head that is now saved to `folder` replaces: its name, when it was saved, its score. None where there is none."""
    standing = standing_head(folder)
    return standing and f"{standing} was replaced; --name keeps both"


def standing_head(folder: Path) -> str | None:
    """The head in `folder` in words; None where there is none, or only a damaged one, which is no loss."""
    from datetime import datetime

    try:
        saved = datetime.fromtimestamp((folder / HEAD).lstat().st_mtime)
        return _described(folder.name, read_head(folder), saved)
    except (EmbedstoreError, OSError, LookupError, AttributeError, TypeError, ValueError):
        return None


def _described(name: str, document: Mapping[str, Any], saved: datetime) -> str:
    metric, score = main_score(document)
    scored = f", {metric} {score}: {document['report'].get('evaluation')}" if score else ""
    inputs = " + ".join(document.get("inputs", ()))
    return f"head {name!r} ({document.get('kind')} on {inputs}, saved {saved:%Y-%m-%d %H:%M}{scored})"


def main_score(document: Mapping[str, Any]) -> tuple[str, Score | None]:
    """The first metric that ``head.json`` tells, of an alignment that of its first direction; None where there is none."""
    report = document.get("report") or {}
    ways = report.get("retrieval") or {"": {"scores": report.get("metrics") or {}}}  # an alignment's, or a head's
    way, retrieval = next(iter(ways.items()), ("", {"scores": {}}))
    metric, score = next(iter(retrieval["scores"].items()), ("", {}))
    known = bool(score) and all(isinstance(value, float) for value in score.values())  # JSON has no NaN
    return " ".join([way, metric]).strip(), Score.from_dict(score) if known else None


def split_file(rows: npt.NDArray[np.int64], ids: npt.NDArray[Any], split: npt.NDArray[Any]) -> bytes:
    """``split.parquet``: what each item (n,) that a head was made from was to it, such as ``"train"``, or its fold."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table({"row": rows, "id": pa.array(ids.tolist()), "split": split.tolist()}), buffer)
    return buffer.getvalue()


def read_split(split: bytes | None, name: str) -> pa.Table:
    """The table of `split_file`, as it was saved with the head `name`.

    Raises
    ------
    CorruptStoreError
        There is none.
    """
    if split is None:
        raise CorruptStoreError(f"Head {name!r} has no split.parquet. Train the head again, with --replace.")
    return parquet_table(split)


def state_of(document: Mapping[str, Any], contents: dict[str, bytes]) -> HeadState:
    """The state that `write_files` wrote; takes it out of `contents`."""
    from safetensors.numpy import load

    return HeadState(document["state"], load(contents.pop(WEIGHTS)), contents)


def _accept(folder: Path, document: Mapping[str, Any]) -> None:
    if document.get("kind") == ALIGN:
        raise UsageError(
            f"Head {folder.name!r} aligns {' with '.join(document.get('inputs', ()))} for search; it predicts nothing. "
            f'Use it: embedstore search {folder.parent.parent} --text "…" --space {folder.name}.SPACE'
        )


def _restore(folder: Path, document: Mapping[str, Any], contents: dict[str, bytes]) -> HeadRecord:
    split = contents.pop(SPLIT, None)
    head = head_class(document["kind"]).from_state(document["params"], state_of(document, contents))
    specs = {name: EncoderSpec.from_dict(entry["encoder"]) for name, entry in document["inputs"].items()}
    columns = ColumnEncoder.from_dict(document["columns"]) if document.get("columns") else None
    target, report = document["target"], document["report"]
    if not (isinstance(target, str) and isinstance(report, dict)):
        raise ValueError(f"its target or report is {target!r}, {type(report).__name__}")
    record = HeadRecord(folder.name, target, specs, head, report, columns, split)
    _try(record)
    return record


def _try(record: HeadRecord) -> None:
    """Predict two items, so that a state which fits nothing shows itself here and nowhere else."""
    head, dims = record.head, record.head.dims_
    width = {name: spec.dim for name, spec in record.inputs.items()}
    if any(dims.get(name) != dim for name, dim in width.items()) or not set(dims) - set(width) <= {METADATA}:
        raise ValueError(f"its inputs are {dims}, those of its encoders {width}")
    head.check_specs({name: spec.fingerprint for name, spec in record.inputs.items()})
    inputs = {name: np.zeros((2, dim), np.float32) for name, dim in dims.items()}
    found, expected = np.asarray(head.outputs(inputs)), (2, *head.output_shape)
    if found.shape != expected or found.dtype.kind != "f":
        raise ValueError(f"it predicts {found.dtype}{found.shape}, expected {expected}")
