"""H1: heads that are fitted on the device are those of a CPU, and how much sooner they are there."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from benchmarks._gpu.run import Run
from benchmarks._gpu.world import World
from embedstore.heads import Head, make_head
from embedstore.heads.solvers.logistic import LogisticProblem, Solution

Float = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int64]
T = TypeVar("T")

ALPHA = 1e-4
OBJECTIVE, AGREE, ACCURACY, PROBABILITY = 1e-5, 0.999, 0.02, 1e-3
"""How far objectives (relative), predictions (share that agrees), accuracies and probabilities may be apart."""
NETWORKS = ("gated", "attention")
SPREAD = 2.5
"""Length of the mean of a class that networks learn, where noise is 1 in every direction."""
TRIED = 0.75
"""Share of the items that networks are fitted on; the others say how good they are."""


def problem(n: int, d: int, c: int, device: str) -> tuple[Float, Codes]:
    """Features (n, d) with a decaying spectrum, and labels (n,) that a linear model nearly explains; drawn on the device."""
    import torch

    generator = torch.Generator(device).manual_seed(0)
    options: dict[str, Any] = {"generator": generator, "device": device}
    x = torch.randn(n, d, **options) * torch.arange(1, d + 1, device=device) ** -0.4
    logits = x @ torch.randn(d, c, **options)
    chance = -torch.log(-torch.log(torch.rand(n, c, **options).clamp(1e-9, 1 - 1e-7)))
    labels = (3 * logits / logits.std() + chance).argmax(1)
    return x.cpu().numpy(), labels.cpu().numpy()


def timed(work: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def heads(world: World, run: Run) -> None:
    sizes = world.sizes
    x, y = problem(*sizes.head, world.device)
    what = "{:,} × {:,}, {} classes".format(*sizes.head)
    with run.attempt(f"linear, {what}"):
        _linear(world, run, f"linear, {what}", x, y)
    with run.attempt(f"ridge on the CPU, {what}"):
        run.report(f"ridge on the CPU, {what}", "", timed(lambda: make_head("ridge").fit(x, y))[1], " s")
    for kind in NETWORKS:
        with run.attempt(kind):
            _network(world, run, kind)
    if importlib.util.find_spec("xgboost") is None:
        run.skip("gbdt", "xgboost is not installed")
    else:
        with run.attempt("gbdt"):
            _both(world, run, "gbdt", world.device, epochs=None)
    hard = "{:,} × {:,}, {} classes".format(*sizes.hard)
    with run.attempt(f"one penalty, {hard}"):
        _hard(world, run, f"one penalty, {hard}")


def _linear(world: World, run: Run, what: str, x: Float, y: Codes) -> None:
    """The grid of penalties, by numpy on the CPU and by torch on the device."""
    make_head("linear", device=world.arrays).fit(x[:200], y[:200])
    cpu, slow = timed(lambda: make_head("linear").fit(x, y))
    device, fast = timed(lambda: make_head("linear", device=world.arrays).fit(x, y))
    objectives: list[float] = [head.objective_ for head in (cpu, device)]  # type: ignore[attr-defined]
    run.report(what, "CPU", slow, " s")
    run.report(what, "device", fast, " s")
    run.check(what, "objectives apart", abs(objectives[1] / objectives[0] - 1), "≤", OBJECTIVE)
    run.check(what, "same predictions", float((cpu.predict(x) == device.predict(x)).mean()), "≥", AGREE)


def _hard(world: World, run: Run, what: str) -> None:
    n, d, c = world.sizes.hard
    x, y = problem(n, d, c, world.device)

    def solve(device: str) -> Solution:
        return LogisticProblem(x, y, c, device=device).solve(ALPHA)

    solve(world.arrays)
    ours, fast = timed(lambda: solve(world.arrays))
    run.report(what, "device", fast, " s")
    run.report(what, "passes", float(ours.passes))
    theirs, slow = timed(lambda: solve("cpu"))
    run.report(what, "CPU", slow, " s")
    run.check(what, "objectives apart", abs(ours.objective / theirs.objective - 1), "≤", OBJECTIVE)
    same = (x @ ours.weight + ours.bias).argmax(1) == (x @ theirs.weight + theirs.bias).argmax(1)
    run.check(what, "same predictions", float(same.mean()), "≥", AGREE)


def clusters(n: int, d: int, c: int) -> tuple[Mapping[str, Float], Codes]:
    """Two inputs (n, d) of classes that overlap, and labels (n,)."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, c, n)
    inputs = {}
    for name in ("image", "text"):
        centres = rng.standard_normal((c, d)).astype(np.float32) * np.float32(SPREAD / np.sqrt(d))
        inputs[name] = centres[y] + rng.standard_normal((n, d)).astype(np.float32)
    return inputs, y


def _network(world: World, run: Run, kind: str) -> None:
    head, inputs = _both(world, run, kind, world.arrays, epochs=2 if world.tiny else 6)
    moved = on_cpu(head)
    apart = float(np.abs(head.predict_proba(inputs) - moved.predict_proba(inputs)).max())
    run.check(kind, "probabilities apart once on a CPU", apart, "≤", PROBABILITY)


def on_cpu(head: Head) -> Head:
    """A fitted head as a machine without a GPU restores it."""
    return type(head).from_state({**head.get_params(), "device": "cpu"}, head.state())


def _both(world: World, run: Run, kind: str, device: str, *, epochs: int | None) -> tuple[Head, Mapping[str, Float]]:
    """A head that is fitted on a CPU and on the device; gives the second one and the items that neither saw."""
    n, d, c = (240, 16, 3) if world.tiny else (8_000, 512, 20)
    inputs, y = clusters(n, d, c)
    cut = round(TRIED * n)
    seen, held = ({name: x[part] for name, x in inputs.items()} for part in (slice(cut), slice(cut, None)))
    options: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    scores, fitted = [], []
    for where, name in (("cpu", "CPU"), (device, "device")):
        head, seconds = timed(lambda where=where: make_head(kind, device=where, seed=0, **options).fit(seen, y[:cut]))  # type: ignore[misc]
        run.report(kind, name, seconds, " s")
        scores.append(head.score(held, y[cut:]))
        fitted.append(head)
    run.report(kind, "accuracy", scores[1])
    run.check(kind, "accuracies apart", abs(scores[0] - scores[1]), "≤", ACCURACY)
    return fitted[1], held
