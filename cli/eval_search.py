"""``embedstore eval-search``: retrieval scored from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedstore.retrieval.eval_search_options import EvalSearchOptions

from .from_options import takes
from .opening import opened
from .options import SECONDS, AllowModel, Json, NoCheck, Store, Where, WhereTimeout

if TYPE_CHECKING:
    from embedstore.retrieval.eval_search import RetrievalFigures, SearchEvaluation

NAMES = {"hit": "hit", "precision": "precision", "recall": "recall", "ndcg": "nDCG", "map": "mAP", "mrr": "MRR"}


@takes(EvalSearchOptions)
def eval_search(
    store: Store,
    *,
    space: Annotated[str | None, typer.Option(help="Space of queries and results.")] = None,
    where: Where = None,
    where_timeout: WhereTimeout = SECONDS,
    no_check: NoCheck = False,
    k: Annotated[list[str] | None, typer.Option("-k", help="Cut-offs, such as 1,5,10; may be repeated.")] = None,
    allow_model: AllowModel = None,
    json: Json = False,
    **given: Any,
) -> None:
    """Score retrieval by a column, by judged pairs, or from one space to another that is aligned with it."""
    from embedstore.errors import UsageError
    from embedstore.retrieval.eval_search import eval_search as run

    from . import render

    if space is not None:
        if given["source"] is not None or given["target"] is not None:
            raise UsageError("Give either --space, or --from and --to.")
        given |= {"source": space, "target": space}
    if k:
        given["k"] = _cut_offs(k)
    with render.status("searching"):
        held = opened(store, where_timeout=where_timeout, allow_model=allow_model, no_check=no_check)
        result = run(held, where=where, **given)
    render.print_json(result.to_dict()) if json else _print(result)


def _cut_offs(given: list[str]) -> list[int]:
    from embedstore.errors import UsageError

    try:
        return [int(value) for part in given for value in part.split(",")]
    except ValueError:
        raise UsageError(f"-k should be whole numbers such as 1,5,10. Got {','.join(given)!r} instead.") from None


def _print(result: SearchEvaluation) -> None:
    from . import render

    way = f"space {result.target!r}" if result.source == result.target else f"{result.source!r} to {result.target!r}"
    render.say(f"{way}; relevant: {result.relevance}")
    every, once = result.figures, result.deduplicated
    columns = ["metric", "value [95 %]", "chance", *(("without copies [95 %]", "chance, without") if once else ())]
    rows = [
        (_name(metric, every, result.depth), *_cells(every, metric), *(_cells(once, metric) if once else ()))
        for metric in every.metrics
    ]
    render.print_table(columns, rows, numeric=[c for c in columns if c.startswith("chance")])
    render.say(_sizes(every))
    if once:
        render.say(f"without {result.copies:,} copies (an earlier item has the payload): {_sizes(once)}")
    for note in result.notes:
        render.say(f"note: {note}")
    render.say(f"{result.seconds:.1f} s")


def _name(metric: str, figures: RetrievalFigures, depth: int) -> str:
    name, _, k = metric.partition("@")
    k = k or (str(depth) if depth < figures.gallery else "")
    return NAMES[name] + (f"@{k}" if k else "")


def _cells(figures: RetrievalFigures, metric: str) -> tuple[str, str]:
    return str(figures.metrics[metric]), f"{figures.chance[metric]:.3f}"


def _sizes(figures: RetrievalFigures) -> str:
    left = f"; {figures.without_relevant:,} queries without any left out" if figures.without_relevant else ""
    return f"{figures.queries:,} queries, {figures.relevant:,.1f} relevant items each, gallery of {figures.gallery:,}{left}"
