"""The options of `embed`, checked when they are made.

Defaults and help of the command come from here, so nothing heavy is imported.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedstore._core.arguments import TIMEOUT, as_type, check_least, check_types, option, shown
from embedstore._core.message_parts import parsed
from embedstore.errors import UsageError
from embedstore.spec import MESSAGE, MODALITIES, SOURCE_WORDS, TEXT

if TYPE_CHECKING:
    from embedstore.encoders import Encoder
    from embedstore.ingest.typed_batches import Known
    from embedstore.sources.confined import Root


@dataclass(frozen=True, kw_only=True)
class EmbedOptions:
    """What `embed` is asked besides a dataset and a store; its documentation says what each option means.

    Raises
    ------
    UsageError
        A value that cannot be right, whatever the data.
    """

    image: "str | Encoder | Mapping[str, str | Encoder] | None" = None
    text: "str | Encoder | Mapping[str, str | Encoder] | None" = None
    audio: "str | Encoder | Mapping[str, str | Encoder] | None" = None
    video: "str | Encoder | Mapping[str, str | Encoder] | None" = None
    message: "Mapping[str, str | Encoder] | None" = None
    columns: Mapping[str, str] | None = None
    types: "Mapping[str, str] | Known | None" = None
    dtype: str | None = option(None, "float16 (default) or float32, for new spaces.")
    device: str = option("auto", "auto, cpu, cuda, cuda:N, or several GPUs: cuda:0,cuda:1.")
    precision: str = option("auto", "auto (float16 on a GPU if the vectors agree), float32, float16 or bfloat16.")
    runtime: str = option("auto", "auto (OpenVINO on a CPU if installed), torch, compile or openvino.")
    workers: int | None = option(None, "Threads that read and decode; default one a CPU.")
    max_pixels: int | None = option(None, "Larger images are failures.")
    rehash: bool = option(False, "Read every file, whatever its size and mtime.")
    retry_failed: bool = option(False, "Try unchanged failures again.")
    strict: bool = option(False, "Stop at the first failure, new or known.")
    prune: bool = option(False, "Remove items of the store that DATASET does not have.")
    timeout: float = option(TIMEOUT, "Seconds that a read from a URL may take.")
    root: str | os.PathLike[str] | None = option(
        None, "Read no payload outside this folder: for tables of others.", Path | None
    )
    prompt: str | None = option(
        None,
        "Put before every text instead of the model's own: one of its prompts by name, or a text ('query: '); '' for none.",
    )
    query_prompt: str | None = option(None, "The same before a query, recorded for searches.")
    force: bool = option(False, "Cut vectors (MODEL@256) though the model does not allow it.")
    allow_models: Sequence[str | os.PathLike[str]] = ()

    def __post_init__(self) -> None:
        check_types(self)
        if not hasattr(self.types, "kinds"):
            as_type(self.types, Mapping[str, str] | None, "types")
        if not self.timeout > 0:
            raise UsageError(f"timeout must be above 0 seconds. Got {self.timeout} instead.")
        check_least(self, workers=1, max_pixels=1)
        _ = self.encoders, self.text_columns, self.messages  # refused here rather than when they are needed

    @cached_property
    def encoders(self) -> "dict[str, tuple[str, str | Encoder]]":
        """Space name → (modality, encoder), of those that were named.

        Raises
        ------
        UsageError
            Something else than an encoder, or two for one space.
        """
        named: dict[str, tuple[str, str | Encoder]] = {}
        for modality in MODALITIES:
            given = getattr(self, modality)
            spaces = given if isinstance(given, Mapping) else {modality: given} if given is not None else {}
            for name, encoder in spaces.items():
                as_type(name, str, "the name of a space")
                self._check_encoder(modality, encoder)
                if name in named:
                    raise UsageError(f"Two encoders are given for a space called {name!r}. Name one: NAME=ENCODER.")
                named[name] = (modality, encoder)
        for asked, encoder in as_type(self.message or {}, Mapping[str, Any], "message").items():
            name, _ = parsed(as_type(asked, str, "what a message is made of"))
            self._check_encoder(MESSAGE, encoder)
            if name in named:
                raise UsageError(
                    f"Two encoders are given for a space called {name!r}. Name the message: NAME={{COLUMN}}+{{COLUMN}}."
                )
            named[name] = (MESSAGE, encoder)
        return named

    @staticmethod
    def _check_encoder(modality: str, encoder: object) -> None:
        if not isinstance(encoder, str) and not hasattr(encoder, "encode"):
            raise UsageError(f"{modality} takes the name of an encoder, or an Encoder. Got {shown(encoder)} instead.")

    @cached_property
    def messages(self) -> dict[str, tuple[str, ...]]:
        """Space → the columns of the dataset that its messages are made of."""
        return dict(parsed(asked) for asked in self.message or {})

    @property
    def source_columns(self) -> dict[str, str]:
        """``"id"`` or modality → column: what a source is opened with."""
        return {word: column for word, column in (self.columns or {}).items() if word in SOURCE_WORDS}

    @cached_property
    def text_columns(self) -> dict[str, str]:
        """Space → the column whose texts it embeds, of those that were named.

        Raises
        ------
        UsageError
            No encoder of texts is named for the space.
        """
        own = {name: column for name, column in (self.columns or {}).items() if name not in SOURCE_WORDS}
        for name, column in own.items():
            if self.encoders.get(name, ("", ""))[0] != TEXT:
                raise UsageError(
                    f"Column {column!r} is named for {name!r}, which is no space of texts of this run. Name its encoder: "
                    f"--text {name}=ENCODER --text-column {name}={column}"
                )
        return own

    @cached_property
    def confined(self) -> "Root | None":
        """The folder that payloads have to lie in.

        Raises
        ------
        UsageError
            There is none.
        """
        from embedstore.sources.confined import Root

        return None if self.root is None else Root(self.root)

    @property
    def threads(self) -> int:
        """How many read and decode."""
        return self.workers or os.cpu_count() or 1
