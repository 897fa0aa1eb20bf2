"""Names of classes as vectors beside spaces of a store: by the encoder itself, or through an alignment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.column_types import as_text
from embedstore._core.metadata_features import METADATA
from embedstore._core.unit import unit_rows
from embedstore.errors import UsageError
from embedstore.heads.base import Head, as_labels
from embedstore.heads.class_texts import ClassTexts, TextSide
from embedstore.heads.io import HeadRecord
from embedstore.heads.prompted import PromptedHead, ZeroShotHead
from embedstore.registry import PROMPTED
from embedstore.retrieval.aligned_spaces import ProjectedSpace, SearchableSpace, query_space, skipped_aligners, spaces_of
from embedstore.retrieval.queries import Resolver
from embedstore.store import Store, View
from embedstore.training.tasks.base import CLASSES, Task
from embedstore.training.train_options import TrainOptions

__all__ = [
    "CLIP_TEMPLATES",
    "TEMPLATES",
    "Named",
    "check_templates",
    "class_texts",
    "known_pairs",
    "pairs_behind",
    "texts_for_head",
    "zero_shot",
]

SOUND_TEMPLATES = ("{}", "the sound of {}", "this is a sound of {}.")
"""For encoders of sounds and texts."""

CLIP_TEMPLATES = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
"""For encoders that were trained on images with texts: the seven of CLIP's authors that do as well as their eighty."""
TEMPLATES = ("{}", "a {}", "a picture of a {}")
"""For other text encoders, which know titles and sentences rather than captions."""


def class_texts(
    store: Store,
    inputs: Sequence[str],
    classes: Sequence[Any],
    *,
    templates: Sequence[str] | None = None,
    alignment: str | None = None,
    device: str = "auto",
) -> ClassTexts:
    """The texts of classes beside each of `inputs`, spaces of `store`.

    A class is put where a template has ``{}``, an underscore in it read as a blank. Its vector is the mean of the unit vectors
    of its texts, of unit length, as CLIP's authors and open_clip's ``build_zero_shot_classifier`` make it.

    Parameters
    ----------
    templates : sequence of str, optional
        Default: `CLIP_TEMPLATES` where the space's encoder takes texts itself, else `TEMPLATES`.
    alignment : str, optional
        The saved alignment through which spaces whose encoder takes no texts are compared with them, where there are several.
    device : str
        For encoding the texts.

    Raises
    ------
    UsageError
        A space that no text can be compared with, an unknown alignment, a template without ``{}``, or two classes of one text.
    FingerprintError
        The text encoder that its name loads is not the one that the space, or the alignment, knows.
    """
    if METADATA in inputs:
        raise UsageError("Names of classes cannot be compared with metadata columns; leave columns out.")
    labels, named = as_labels(classes), check_templates(templates)
    words = [str(as_text(label)).replace("_", " ").strip() for label in labels.tolist()]
    if (blank := next((i for i, word in enumerate(words) if not word), None)) is not None:
        raise UsageError(f"Class {labels.tolist()[blank]!r} has no name that a text could be made of.")
    if len(same := {word for word in words if words.count(word) > 1}):
        raise UsageError(f"Two classes would be told by one text: {sorted(same)[0]!r}. Give them other names.")
    resolver = Resolver(store, device=device)
    sides = {name: _side(resolver, _target(resolver, name, alignment), words, named) for name in inputs}
    return ClassTexts(labels, sides)


def check_templates(templates: Sequence[str] | None) -> tuple[str, ...] | None:
    """Templates that each hold ``{}`` once, or a `UsageError`; None where there are none."""
    for template in templates or ():
        if template.count("{}") != 1:
            raise UsageError(
                f"A template holds {{}} once, where the class goes, such as 'a photo of a {{}}'. Got {template!r}."
            )
    return tuple(templates) if templates else None


def known_pairs(store: Store, inputs: Sequence[str], alignment: str | None) -> npt.NDArray[np.int64]:
    """Rows of the items that the alignments behind `inputs` were fitted on, whose titles they know; none without alignment."""
    resolver = Resolver(store)
    targets = [_target(resolver, name, alignment) for name in inputs]
    rows = [target.fitted_on for target in targets if isinstance(target, ProjectedSpace)]
    return np.unique(np.concatenate([np.empty(0, np.int64), *rows]))


def pairs_behind(store: Store, head: Head) -> tuple[Named, list[str]]:
    """The pairs that the alignments in a saved head of `store` were fitted on; and alignments that are not there any more."""
    texts = head.texts if isinstance(head, PromptedHead) else None
    learned = {} if texts is None else {name: side for name, side in texts.sides.items() if side.weight is not None}
    if not learned:
        return Named(), []
    spaces = [space for space in spaces_of(store).values() if isinstance(space, ProjectedSpace)]
    rows, notes = [np.empty(0, np.int64)], []
    for name, side in learned.items():
        found = [s.fitted_on for s in spaces if s.base.name == name and s.spec.alignment == side.alignment]
        rows += found
        if not found:
            notes.append(
                f"{store.path} no longer has the alignment through which names were compared with {name!r}: items that it was "
                "fitted on may be among those judged, and flatter"
            )
    return Named(texts, np.unique(np.concatenate(rows))), notes


@dataclass(frozen=True)
class Named:
    """What a head begins with, and the rows of the pairs that the alignments behind it were fitted on."""

    texts: ClassTexts | None = None
    pairs: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def paired(self, view: View) -> npt.NDArray[np.int64]:
        """Positions in `view` of items of such pairs."""
        return np.flatnonzero(np.isin(view.rows, self.pairs))

    def notes(self, view: View, test: npt.NDArray[np.int64]) -> list[str]:
        """What people should know of the items at positions `test`."""
        known = int(np.isin(view.rows[test], self.pairs).sum())
        if not known:
            return []
        return [
            f"{known:,} of the {len(test):,} test items are among the pairs that the alignment was fitted on: scores flatter"
        ]


def texts_for_head(view: View, task: Task, options: TrainOptions) -> Named:
    """The texts of the target's classes, if the head asked for begins with them.

    Raises
    ------
    UsageError
        It does not, and templates or an alignment were named; few shots of what are no classes.
    """
    if options.shots is not None and task.heads != CLASSES:
        raise UsageError(f"shots are items of a class; target {view.target_name!r} is for the task {task.name}.")
    if options.head not in PROMPTED:
        if options.templates or options.alignment:
            raise UsageError(
                f"templates and alignment are for heads that begin with names of classes: {', '.join(PROMPTED)}. "
                f"Got head {options.head!r}."
            )
        return Named()
    store = view.store if isinstance(view.store, Store) else Store.open(view.store.path)
    classes = task.labels(view).classes.tolist()
    texts = class_texts(
        store, view.names, classes, templates=options.templates, alignment=options.alignment, device=options.device
    )
    return Named(texts, known_pairs(store, view.names, options.alignment))


def zero_shot(store: Store, inputs: Sequence[str], classes: Sequence[str], **how: Any) -> HeadRecord:
    """A head that knows classes by their names alone, as if it were saved; `how` goes to `class_texts`."""
    head = ZeroShotHead(class_texts(store, inputs, classes, **how)).begin()
    specs = {name: store.space(name).spec for name in inputs}
    return HeadRecord(ZeroShotHead.kind, "", specs, head, {"task": CLASSES})


def _target(resolver: Resolver, name: str, alignment: str | None) -> SearchableSpace:
    """Where texts are compared with the items of a space: there, or in what an alignment makes of it."""
    space = resolver.space(name)
    if space.spec.modality == "text":
        return space
    made = {s.head: s for s in resolver.spaces.values() if isinstance(s, ProjectedSpace) and s.base.name == name}
    made = {head: s for head, s in made.items() if query_space(resolver.spaces, s, "text") is not None}
    takes_texts = resolver.crosses(space, "text")
    others = {s.head for s in resolver.spaces.values() if isinstance(s, ProjectedSpace)}
    if takes_texts and (alignment is None or (alignment in others and alignment not in made)):
        return space
    if alignment is not None and alignment not in made:
        if why := skipped_aligners(resolver.store).get(alignment):
            raise UsageError(why)
        raise UsageError(
            f"Alignment {alignment!r} does not align {name!r} with texts. Those that do: {', '.join(made) or 'none'}."
        )
    if not made:
        raise UsageError(
            f"Space {name!r} ({space.spec.name}) cannot be compared with names of classes: its encoder takes no texts. "
            f"Align it first: embedstore align {resolver.store.path} --from TEXTS --to {name}; or choose other --inputs, or "
            "embed with "
            "--image clip."
        )
    if alignment is None and len(made) > 1:
        raise UsageError(f"Several alignments compare {name!r} with texts. Say which: --alignment {' or '.join(made)}.")
    return made[alignment or next(iter(made))]


def _side(resolver: Resolver, target: SearchableSpace, words: Sequence[str], templates: Sequence[str] | None) -> TextSide:
    aligned = isinstance(target, ProjectedSpace)
    native = not aligned and target.spec.modality != "text"
    usual = SOUND_TEMPLATES if target.spec.modality == "audio" else CLIP_TEMPLATES
    templates = templates or (usual if native else TEMPLATES)
    payloads = [template.replace("{}", word).encode() for template in templates for word in words]
    vectors = unit_rows(resolver.encode(target, "text", payloads)).reshape(len(templates), len(words), -1)
    items = target.base.spec if isinstance(target, ProjectedSpace) else target.spec
    mean, weight = target.projection if isinstance(target, ProjectedSpace) else (None, None)
    return TextSide(
        vectors=unit_rows(vectors.mean(axis=0)),
        templates=templates,
        encoder=resolver.encoder_of(target, "text").spec.fingerprint,
        items=items.fingerprint,
        alignment=target.spec.alignment,
        mean=mean,
        weight=weight,
    )
