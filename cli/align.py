"""``embedstore align``: learn to compare two spaces, and how well each side finds the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedstore.retrieval.align_options import AlignOptions

from .from_options import takes
from .opening import opened
from .options import SECONDS, Json, NoCheck, Store, Where, WhereTimeout

if TYPE_CHECKING:
    from embedstore.retrieval.align import AlignReport, Retrieval, Training

RECALLS = ("r@1", "r@5", "r@10")


@takes(AlignOptions)
def align(
    store: Store,
    *,
    where: Where = None,
    where_timeout: WhereTimeout = SECONDS,
    no_check: NoCheck = False,
    json: Json = False,
    **given: Any,
) -> None:
    """Learn to compare two spaces, from items that have both: search images by words without CLIP."""
    from embedstore.retrieval.align import align

    from . import render

    with render.status("aligning"):
        held = opened(store, where_timeout=where_timeout, no_check=no_check)
        report = align(held, where=where, **given)
    if json:
        render.print_json(report.to_dict())
        return
    _print_report(report)
    render.say(f"Search with it: embedstore search {store} {_query(report)} --space {report.spaces[1]}")


def _print_report(report: AlignReport) -> None:
    from . import render

    rows = []
    for query, gallery in ((report.source, report.target), (report.target, report.source)):
        way = f"{query}_to_{gallery}"
        rows += _rows(f"{query} → {gallery}", report.retrieval[way])
        rows += _rows(f"{query} → {gallery}, without copies", report.distinct[way])
    columns = ["direction", "queries", "gallery", "R@1", "R@5", "R@10", "MRR [95 %]"]
    render.print_table(columns, rows, numeric=columns[1:6])
    fitted = report.items["train"] + report.items["val"]
    penalties = ", ".join(f"{side} {value:g}" for side, value in report.learned["penalties"].items())
    render.say(
        f"{report.evaluation}; fitted on {fitted:,} pairs; penalties {penalties}; power {report.learned['power']:g}; "
        f"{report.learned['dim']} dimensions; fit {report.fit_seconds:.1f} s, {report.seconds:.1f} s with scores. "
        f"Saved as head {report.head!r}."
    )
    if report.training is not None:
        _print_training(report.training)
    for note in report.notes:
        render.say(f"note: {note}")


def _print_training(done: Training) -> None:
    """Both on the test pairs, whichever was kept, and what decided."""
    from . import render

    rows = []
    for way, gain in done.gain.items():
        scores = {"CCA": done.cca[way], f"trained ({done.loss})": done.trained[way]}
        for name, found in scores.items():
            rows.append(
                (f"{way.replace('_to_', ' → ')}, {name}", *(f"{found[k].value:.3f}" for k in RECALLS), str(found["mrr"]))
            )
        rows.append(("  gain in MRR, paired", "", "", "", str(gain)))
    render.print_table(["beside one another", "R@1", "R@5", "R@10", "MRR [95 %]"], rows, numeric=["R@1", "R@5", "R@10"])
    verdict = "the trained one was kept" if done.kept else "no certain gain: CCA was kept"
    render.say(f"on {done.pairs:,} pairs held out, {done.steps} steps gain {done.held_out} in MRR; {verdict}")


def _rows(title: str, found: Retrieval) -> list[tuple[str, ...]]:
    """The scores, and what chance would get."""
    scores = (*(f"{found.scores[k].value:.3f}" for k in RECALLS), str(found.scores["mrr"]))
    chance = tuple(f"{found.chance[k]:.3f}" for k in (*RECALLS, "mrr"))
    return [(title, f"{found.queries:,}", f"{found.gallery:,}", *scores), ("  chance", "", "", *chance)]


def _query(report: AlignReport) -> str:
    return {"text": '--text "a red car"', "image": "--image FILE"}.get(report.modality, "--id ID")
