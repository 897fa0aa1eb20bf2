"""The options of `import_vectors`, checked when they are made.

Defaults and help of the command come from here, so nothing heavy is imported.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedstore._core.arguments import check_types, option, shown
from embedstore.errors import UsageError
from embedstore.spec import MODALITIES

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True, kw_only=True, eq=False)
class ImportOptions:
    """What `import_vectors` is asked besides a source and a store; its documentation says what each option means.

    Raises
    ------
    UsageError
        A value that cannot be right, whatever the vectors.
    """

    space: str | None = option(None, "Name of the space; default the modality.")
    encoder: str | None = option(None, "The encoder that made the vectors: a declaration.")
    modality: str | None = option(None, "What they are of: image, text, audio or video.")
    ids: "str | os.PathLike[str] | Sequence[str] | npt.NDArray[Any] | None" = option(
        None, "Column, dataset or file with the ids; 'row' numbers the rows.", str | None
    )
    metadata: str | os.PathLike[str] | Mapping[str, Sequence[Any]] | None = option(
        None, "Table, or folder of .parquet, with one row a vector.", Path | None
    )
    vector_column: str | None = option(None, "Column, array or dataset with the vectors, or a prefix.")
    types: Mapping[str, str] | None = None
    dtype: str | None = option(None, "float16 (default) or float32, for new spaces.")
    normalized: bool | None = option(None, "Declare unit length; others are failures.", flag="--normalized")
    add_items: bool = option(False, "Let a further space bring new items.")
    strict: bool = option(False, "Stop at the first failure.")

    def __post_init__(self) -> None:
        check_types(self)
        named = self.ids is None or isinstance(self.ids, str | os.PathLike)
        if not named and (isinstance(self.ids, bytes | Mapping) or not isinstance(self.ids, Iterable)):
            raise UsageError(f"ids must be the name of a column, a path, or strings. Got {shown(self.ids)} instead.")
        if self.modality is not None and self.modality not in MODALITIES:
            raise UsageError(f"modality must be one of {list(MODALITIES)}. Got {self.modality!r} instead.")
