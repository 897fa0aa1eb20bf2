"""Hostile contents with valid digests: documents, parts, weights, trees, indexes and encoders. Cases of kind ``hostile``.

Each case is a word and arguments; `craft` does it to a store.
"""

from __future__ import annotations

import io
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from benchmarks._faults.forge import DELETED, MANIFEST, Document, Forge, places, put

MUTATED = 200
"""Mutations of every kind of binary file."""


def nested(depth: int = 100_000) -> str:
    return "[" * depth + "]" * depth


VALUES: dict[str, Any] = {
    "deleted": DELETED,
    "null": None,
    "true": True,
    "minus": -1,
    "zero": 0,
    "huge": 1 << 62,
    "beyond": 10**40,
    "float": 1.5,
    "infinite": float("inf"),
    "empty": "",
    "list": [],
    "object": {},
    "objects": [{"file": 1}],
    "parent": "../precious/letter.txt",
    "parents": "../../../precious/letter.txt",
    "ancestors": "../../../../precious/letter.txt",
    "absolute": "/etc/hostname",
    "nul": "a\0b",
    "surrogate": "\ud800",
    "escape": "\x1b[31m\nred",
    "long": "x" * 1_000_000,
    "role": "store.json",
    "deep": "DEEP",
}


def cases(base: Path, rng: random.Random) -> Iterator[list[str]]:
    """Lists of cases, each in random order."""
    forge = Forge(base)
    for file in forge.documents():
        every = [f"value {file} {quote('|'.join(at), safe='|')} {word}" for at in places(forge.read(file)) for word in VALUES]
        rng.shuffle(every)
        yield every
    binary = [f"part {file}" for file in forge.parts()]
    binary += [f"named {folder} {role}" for folder in forge.folders() for role in forge.named(folder)]
    every = [f"mutated {what} {rng.randrange(1 << 30)}" for what in binary for _ in range(MUTATED)]
    rng.shuffle(every)
    yield every
    crafted = [f"crafted {word}" for word in CRAFTED]
    rng.shuffle(crafted)
    yield crafted


def craft(case: str, store: Path, precious: Path) -> None:
    """Make the store at `store` what `case` says."""
    word, rest = case.split(" ", 1)
    forge = Forge(store)
    if word == "value":
        file, at, value = rest.rsplit(" ", 2)
        _set(forge, file, tuple(unquote(at).split("|")), VALUES[value])
    elif word == "mutated":
        what, target, *role, seed = rest.split(" ")
        mutate(forge, what, target, role, random.Random(int(seed)))
    else:
        CRAFTED[rest](forge, precious)


def _set(forge: Forge, file: str, at: tuple[str, ...], value: Any) -> None:
    document = forge.read(file)
    if value == "DEEP":  # is too deep for Python's own encoder, too, so no digest can be valid
        put(document, at, "DEEP")
        forge.write(file, document)
        forge.write_raw(file, (forge.path / file).read_bytes().replace(b'"DEEP"', nested().encode()))
        return
    put(document, at, value)
    forge.write(file, document)


def mutate(forge: Forge, what: str, target: str, role: list[str], rng: random.Random) -> None:
    """Change some bytes of a part or of a file of a head or an index, and make its digests right."""
    path = forge.path / (target if what == "part" else forge.named(target)[role[0]])
    data = mutated(path.read_bytes(), rng)
    if what == "part":
        forge.replace_part(target, data)
    else:
        forge.replace_named(target, role[0], data)


def mutated(before: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, cut off or repeated: half of the time at the beginning, where headers are."""
    data = bytearray(before)
    way = rng.choice(("flip", "flip", "flip", "cut", "zeros", "ones", "twice"))
    at = rng.choice((rng.randrange(len(data)), rng.randrange(min(len(data), 200))))
    if way == "flip":
        for _ in range(rng.choice((1, 1, 4, 16))):
            data[rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(len(data), 200))] = rng.randrange(256)
    elif way == "cut":
        del data[at:]
    elif way == "twice":
        data[at:at] = data[at : at + 64]
    else:
        data[at : at + 8] = (b"\0" if way == "zeros" else b"\xff") * 8
    return bytes(data)


def _vectors(forge: Forge) -> str:
    return next(file for file in forge.parts() if file.startswith("spaces/given/part"))


def _hdf5(make: Callable[[Any, Path], None], *, mapped: bool = False) -> Callable[[Forge, Path], None]:
    """A vector part that `make` writes into an open HDF5 file, read through HDF5 unless `mapped`."""

    def crafted(forge: Forge, precious: Path) -> None:
        import h5py

        file = _vectors(forge)
        path = forge.path / file
        os.replace(path, precious / "true.h5")
        with h5py.File(precious / "true.h5") as old, h5py.File(path, "w") as new:
            new.attrs.update(dict(old.attrs))
            for name in old:
                if name != "vectors":
                    old.copy(name, new)
            make(new, precious)
        forge.replace_part(file, path.read_bytes(), **({} if mapped else {"offsets": {}}))

    return crafted


def _external_link(new: Any, precious: Path) -> None:
    import h5py

    new["vectors"] = h5py.ExternalLink(str(precious / "true.h5"), "/vectors")


def _virtual(new: Any, precious: Path) -> None:
    import h5py

    with h5py.File(precious / "true.h5") as old:
        shape, dtype = old["vectors"].shape, old["vectors"].dtype
    layout = h5py.VirtualLayout(shape, dtype)
    layout[:] = h5py.VirtualSource(str(precious / "true.h5"), "vectors", shape, dtype)
    new.create_virtual_dataset("vectors", layout)


def _external_storage(new: Any, precious: Path) -> None:
    n = len(new["row"])
    new.create_dataset("vectors", (n, 16), "f2", external=[(str(precious / "true.h5"), 2048, n * 32)])


def _terabyte(new: Any, _: Path) -> None:
    new.create_dataset("vectors", (1 << 36, 16), "f2", chunks=(1 << 14, 16))


def _objects(new: Any, _: Path) -> None:
    import h5py

    new.create_dataset("vectors", (len(new["row"]),), h5py.string_dtype())


def _group(new: Any, _: Path) -> None:
    new.create_group("vectors")


def _looped(new: Any, _: Path) -> None:
    import h5py

    new["vectors"] = h5py.SoftLink("/vectors")


def _sparse_part(forge: Forge, _: Path) -> None:
    """A part of a terabyte of nothing."""
    os.truncate(forge.path / _vectors(forge), 1 << 40)
    forge.refer(_vectors(forge), bytes=1 << 40)


def _sparse_rows(forge: Forge, _: Path) -> None:
    """The same, said to hold as many vectors as fit."""
    file = _vectors(forge)
    os.truncate(forge.path / file, 1 << 40)
    forge.refer(file, bytes=1 << 40, rows=1 << 34, offsets={"vectors": 4096, "row": 1 << 39, "hash": 1 << 39}, xxh3="")


def _sparse_table(forge: Forge, _: Path) -> None:
    os.truncate(forge.path / "items/part-000000.parquet", 1 << 40)
    forge.refer("items/part-000000.parquet", bytes=1 << 40)


def _sparse(file: str) -> Callable[[Forge, Path], None]:
    return lambda forge, _: os.truncate(forge.path / file, 1 << 40)


def _beyond(forge: Forge, _: Path) -> None:
    """More rows than the file has."""
    forge.refer(_vectors(forge), rows=1 << 40)


def _offset(at: int) -> Callable[[Forge, Path], None]:
    return lambda forge, _: forge.refer(_vectors(forge), offsets={"vectors": at, "row": at, "hash": at})


def _pickled(forge: Forge, precious: Path) -> None:
    """Labels of an index as an array of objects, which NumPy would unpickle."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([_Evil(str(precious / "ran"))], dtype=object), allow_pickle=True)
    forge.replace_named("spaces/given/index", "labels", buffer.getvalue())


class _Evil:
    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self._path,)


def _huge_labels(forge: Forge, _: Path) -> None:
    """An array that says it is larger than any memory."""
    header = b"\x93NUMPY\x01\x00v\x00{'descr': '<i8', 'fortran_order': False, 'shape': (1099511627776,), }"
    forge.replace_named("spaces/given/index", "labels", header.ljust(127) + b"\n")


def _weights(shape: list[int], end: int) -> Callable[[Forge, Path], None]:
    """Safetensors that claim a shape and an end."""

    def crafted(forge: Forge, _: Path) -> None:
        header = f'{{"coef":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{end}]}}}}'.encode()
        forge.replace_named("heads/label", "weights.safetensors", len(header).to_bytes(8, "little") + header + b"\0" * 64)

    return crafted


def _encoder(**changes: Any) -> Callable[[Forge, Path], None]:
    """Space `text` by another encoder, with a fingerprint that fits; the folder `model` lies in the store."""

    def crafted(forge: Forge, precious: Path) -> None:
        from embedstore.spec import EncoderSpec

        _model_folder(forge.path / "model", precious)
        _model_folder(precious / "model", precious)

        def change(space: Document) -> None:
            filled = {k: v.format(store=forge.path, precious=precious) for k, v in changes.items()}
            space["encoder"].update(filled)
            space["fingerprint"] = EncoderSpec.from_dict(space["encoder"]).fingerprint

        forge.edit("spaces/text/space.json", change)

    return crafted


def _model_folder(folder: Path, precious: Path) -> None:
    """A folder that claims to be a model, and code that would leave a mark where it is run."""
    folder.mkdir(exist_ok=True)
    code = f"import os\nos.mkdir({str(precious / 'ran')!r})\nclass Evil: pass\n"
    modules = '[{"idx": 0, "name": "0", "path": "", "type": "evil.Evil"}]'
    auto = '{"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}'
    config = f'{{"model_type": "evil", "architectures": ["Evil"], "auto_map": {auto}}}'
    for name, text in {"evil.py": code, "modules.json": modules, "config.json": config, "__init__.py": code}.items():
        (folder / name).write_text(text)


def _many_spaces(forge: Forge, _: Path) -> None:
    def change(manifest: Document) -> None:
        manifest["spaces"].update({f"s{i}": manifest["spaces"]["text"] for i in range(20_000)})

    forge.edit(MANIFEST, change)


def _part_outside(forge: Forge, precious: Path) -> None:
    """A part that is as it was, but lies outside the store."""
    file = _vectors(forge)
    os.replace(forge.path / file, precious / "part-000000.h5")
    forge.refer(file, file="../precious/part-000000.h5")


def _space_outside(forge: Forge, precious: Path) -> None:
    """A space whose name is a path out of the store."""
    os.replace(forge.path / "spaces/image", precious / "image")

    def change(manifest: Document) -> None:
        manifest["spaces"]["../../precious/image"] = manifest["spaces"].pop("image")

    forge.edit(MANIFEST, change)


CRAFTED: dict[str, Callable[[Forge, Path], None]] = {
    "hdf5 external link": _hdf5(_external_link),
    "hdf5 virtual": _hdf5(_virtual),
    "hdf5 external storage": _hdf5(_external_storage),
    "hdf5 terabyte": _hdf5(_terabyte),
    "hdf5 strings": _hdf5(_objects),
    "hdf5 group": _hdf5(_group),
    "hdf5 loop": _hdf5(_looped),
    "hdf5 external link, mapped": _hdf5(_external_link, mapped=True),
    "part outside": _part_outside,
    "space outside": _space_outside,
    "sparse part": _sparse_part,
    "sparse rows": _sparse_rows,
    "sparse table": _sparse_table,
    "sparse store.json": _sparse("store.json"),
    "sparse space.json": _sparse("spaces/text/space.json"),
    "sparse head.json": _sparse("heads/label/head.json"),
    "sparse index.json": _sparse("spaces/given/index/index.json"),
    "sparse embeddings.h5": _sparse("embeddings.h5"),
    "rows beyond the file": _beyond,
    "offset of zero": _offset(0),
    "offset beyond the file": _offset(1 << 40),
    "offset below zero": _offset(-64),
    "labels pickled": _pickled,
    "labels of a terabyte": _huge_labels,
    "weights of a terabyte": _weights([1 << 20, 1 << 18], 1 << 40),
    "weights of another shape": _weights([16], 64),
    "weights of overflowing shape": _weights([1 << 62, 8], 64),
    "encoder in the store": _encoder(name="st:{store}/model", family="st", model="{store}/model"),
    "encoder relative to the store": _encoder(name="st:./model", family="st", model="./model"),
    "encoder relative, plain": _encoder(name="st:model", family="st", model="model"),
    "encoder elsewhere": _encoder(name="st:{precious}/model", family="st", model="{precious}/model"),
    "encoder timm": _encoder(name="timm:local-dir:{store}/model", family="timm", model="local-dir:{store}/model"),
    "encoder openclip": _encoder(name="openclip:local-dir:{store}/model", family="openclip", model="local-dir:{store}/model"),
    "encoder unknown": _encoder(name="os:system", family="os", model="system"),
    "many spaces": _many_spaces,
}

REFUSED = {
    **dict.fromkeys(("hdf5 external link", "hdf5 virtual", "hdf5 external storage", "part outside"), "search"),
    "space outside": "info",
    **dict.fromkeys((word for word in CRAFTED if word.startswith("encoder")), "words"),
}
"""Cases in which a command that succeeds has followed the store out of it, or has run what it brought."""
