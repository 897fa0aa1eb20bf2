"""One small dataset of real pictures with texts and metadata, written in every format that `embed` reads."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from helpers import write_csv, write_image

from embedstore.encoders.hash import HashEncoder
from embedstore.encoders.payloads.thumbnail import thumbnail

LABELS = ["cat", "dog", "eel"]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

Row = dict[str, Any]


class ThumbnailEncoder(HashEncoder):
    """Decodes pictures for real; the vector is the thumbnail."""

    def __init__(self) -> None:
        super().__init__(768, "image", "thumbnail")

    def prepare(self, payload: bytes) -> np.ndarray:  # type: ignore[override,type-arg]
        return thumbnail(payload).pixels

    def encode(self, batch: Sequence[np.ndarray]) -> np.ndarray:  # type: ignore[override,type-arg]
        return np.stack(batch).reshape(len(batch), -1).astype(np.float32) / 255


def make_rows(folder: Path, n: int = 40) -> list[Row]:
    """Pictures below `folder`/images, and what is known of them; ``image`` is the path from `folder`."""
    rows = []
    for i in range(n):
        name = f"images/{i:03d}.{'jpg' if i % 2 else 'png'}"
        write_image(folder / name, seed=i, size=(20 + i, 30))
        text = None if i % 13 == 5 else f"picture number {i}, grüße"
        rows.append({"id": f"{i:03d}", "image": name, "text": text, "label": LABELS[i % 3], "price": i / 4, "n": i})
    return rows


def content(folder: Path, row: Row) -> bytes:
    return (folder / row["image"]).read_bytes()


def as_folder(folder: Path, rows: Sequence[Row]) -> Path:
    """Files whose names are the ids, below a folder for each label."""
    out = folder / "as-folder"
    for row in rows:
        to = out / row["label"] / Path(row["image"]).name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / row["image"], to)
        if row["text"]:
            to.with_suffix(".txt").write_text(row["text"], encoding="utf-8")
    return out


def as_csv(folder: Path, rows: Sequence[Row]) -> Path:
    return write_csv(folder / "t.csv", [{**row, "text": row["text"] or ""} for row in rows])


def as_jsonl(folder: Path, rows: Sequence[Row]) -> Path:
    path = folder / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def as_blobs(folder: Path, rows: Sequence[Row], **options: Any) -> Path:
    """A Parquet file with the pictures in it."""
    table = pa.Table.from_pylist([{**row, "image": content(folder, row)} for row in rows])
    pq.write_table(table, folder / "blobs.parquet", **options)
    return folder / "blobs.parquet"


def hugging_face_table(folder: Path, rows: Sequence[Row]) -> pa.Table:
    """As the package ``datasets`` makes it: Image and ClassLabel features, described in the schema."""
    features = {
        "id": {"dtype": "string", "_type": "Value"},
        "image": {"_type": "Image"},
        "text": {"dtype": "string", "_type": "Value"},
        "label": {"names": LABELS, "_type": "ClassLabel"},
        "price": {"dtype": "float64", "_type": "Value"},
        "n": {"dtype": "int64", "_type": "Value"},
    }
    kinds = [pa.string(), STRUCT, pa.string(), pa.int64(), pa.float64(), pa.int64()]
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pa.schema(list(zip(features, kinds, strict=True)), metadata=metadata)
    made = [
        {**row, "image": {"bytes": content(folder, row), "path": row["image"]}, "label": LABELS.index(row["label"])}
        for row in rows
    ]
    return pa.Table.from_pylist(made, schema=schema)


def as_structs(folder: Path, rows: Sequence[Row]) -> Path:
    pq.write_table(hugging_face_table(folder, rows), folder / "structs.parquet")
    return folder / "structs.parquet"


def as_saved(folder: Path, rows: Sequence[Row], name: str = "saved", batch: int = 7) -> Path:
    """As `datasets.Dataset.save_to_disk` writes it."""
    out = folder / name
    out.mkdir(parents=True)
    table = hugging_face_table(folder, rows)
    with pa.OSFile(str(out / "data-00000-of-00001.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_fingerprint": "0", "_split": None}
    (out / "state.json").write_text(json.dumps(state))
    (out / "dataset_info.json").write_text(json.dumps({"features": {}}))
    return out


def as_list(folder: Path, rows: Sequence[Row]) -> Path:
    path = folder / "pictures.txt"
    path.write_text("\n".join(row["image"] for row in rows) + "\n\n")
    return path


def sample(folder: Path, row: Row) -> dict[str, bytes]:
    """The members of a row in a tar."""
    metadata = {key: row[key] for key in ("label", "price", "n")}
    return {
        f"{row['id']}.{row['image'].rpartition('.')[2]}": content(folder, row),
        **({f"{row['id']}.txt": row["text"].encode()} if row["text"] else {}),
        f"{row['id']}.json": json.dumps(metadata).encode(),
    }


def write_tar(path: Path, members: Mapping[str, bytes] | Iterable[tuple[str, bytes]], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in members.items() if isinstance(members, Mapping) else members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def as_tars(folder: Path, rows: Sequence[Row], shards: int = 3, name: str = "tars/data-{:03d}.tar") -> Path:
    """Shards of consecutive rows; the folder they lie in."""
    size = -(-len(rows) // shards)
    for shard in range(shards):
        part = rows[shard * size : (shard + 1) * size]
        write_tar(folder / name.format(shard), [member for row in part for member in sample(folder, row).items()])
    return (folder / name).parent
