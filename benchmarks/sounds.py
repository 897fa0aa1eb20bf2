"""What do sounds tell, beside pictures and texts of the same items, and what does it cost to embed them?

    python -m benchmarks.sounds [--tiny] [--label label] [--spoken language] TABLE

TABLE has columns ``image``, ``text``, ``audio``, a label and what is heard alone (``--spoken``). It is embedded by one call
(effnet-lite0, minilm, logmel). Then: a linear head on sounds for what is spoken; linear heads for the label on every mix of
modalities, 5 folds; a gated head on all three of which each modality is taken from a share of the test items.

Cost: sounds a second from files to committed vectors, over those of the network alone on prepared windows: for logmel the
spectrogram and its statistics on decoded samples in two threads, for a wav2vec 2.0 of random weights (768-d, 6 layers) the
network. Both in this process, three times by turns, the best of each.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import embedstore as es
from benchmarks.heads import load
from benchmarks.missing import RATES, hits
from embedstore.encoders import load_encoder
from embedstore.encoders.logmel import RATE, log_mel, statistics
from embedstore.encoders.payloads.sounds import decode_sound
from embedstore.heads import make_head
from embedstore.heads.base import Data
from embedstore.sources import open_source

MIXES = ("image", "text", "audio", "image,audio", "text,audio", "image,text", "image,text,audio")
TURNS = 3
Array = np.ndarray[Any, Any]


def tiny_table(folder: Path) -> Path:
    """The demo's sounds with a picture of noise each; what is heard is the label."""
    import pandas as pd
    from PIL import Image

    from embedstore.demo.clips import write_sounds

    table = write_sounds(folder)
    frame = pd.read_csv(table).groupby("label").head(6).reset_index(drop=True)
    rng = np.random.default_rng(0)
    for i in frame.index:
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    frame["image"], frame["language"] = [f"{i}.png" for i in frame.index], frame["label"]
    frame.to_csv(table, index=False)
    return table


def score(training: Any) -> str:
    found = training.metrics["accuracy"]
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def curve(store: es.Store, label: str) -> dict[str, Array]:
    """Accuracy (5,) of a gated head while one modality goes missing at test time."""
    from sklearn.model_selection import StratifiedKFold

    data, _ = load(store, label, ["image", "text", "audio"])
    codes = data.codes
    found = {name: np.zeros(len(RATES)) for name in data.inputs}
    for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(codes, codes):
        fit, held_out = data.take(train), data.take(test)
        head = make_head("gated").fit(fit.inputs, fit.codes, present=fit.present)
        for name in found:
            for i, rate in enumerate(RATES):
                gone = np.random.default_rng(0).permutation(len(held_out)) / len(held_out) < rate
                mask = held_out.present[name] & ~gone
                left = {**held_out.present, name: mask}
                found[name][i] += hits(head, Data(held_out.inputs, left, held_out.codes)).sum()
    return {name: total / len(data) for name, total in found.items()}


def payloads(table: Path, most: int) -> list[bytes]:
    import pandas as pd

    named = pd.read_csv(table)["audio"].dropna()[:most]
    return [(table.parent / name).read_bytes() for name in named]


def rates(count: int, works: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Sounds a second of each, the best of `TURNS`."""
    best = dict.fromkeys(works, 0.0)
    for _ in range(TURNS):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            best[name] = max(best[name], count / (time.perf_counter() - started))
    return best


def cost(table: Path, folder: Path, encoder: str, most: int) -> dict[str, float]:
    """Sounds a second end to end and of the network alone."""
    given = payloads(table, most)
    data = es.sources.MemorySource({"id": [str(i) for i in range(len(given))], "audio": given})
    made: Any = load_encoder(encoder, "audio", runtime="torch")
    runs = iter(range(100))

    def whole() -> None:
        es.embed(data, folder / f"{made.spec.family}{next(runs)}", audio=made)

    if encoder == "logmel":
        samples = [decode_sound(payload, RATE) for payload in given]

        def alone() -> None:
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda x: statistics(log_mel(x)), samples))
    else:
        prepared = [made.prepare(payload) for payload in given]

        def alone() -> None:
            made.encode(prepared)

    return rates(len(given), {"end to end": whole, "alone": alone})


def wav2vec2(folder: Path, *, tiny: bool) -> str:
    import torch
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "conv_dim": (16,) * 7, "num_attention_heads": 2} if tiny else {}
    config = transformers.Wav2Vec2Config(**sizes, num_hidden_layers=2 if tiny else 6)
    transformers.Wav2Vec2Model(config).save_pretrained(folder / "wav2vec2")
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder / "wav2vec2")
    return f"hf-audio:{folder / 'wav2vec2'}"


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", nargs="?", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--label", default="label")
    parser.add_argument("--spoken", default="language")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = tiny_table(folder / "data") if options.tiny else options.table
        encoders = {"image": "hash", "text": "hash"} if options.tiny else {"image": "effnet-lite0", "text": "minilm"}
        report = es.embed(open_source(table), folder / "s", audio="logmel", **encoders)
        sounds = report.spaces["audio"]
        print(f"{report.items} items: {sounds.embedded} sounds, {sounds.missing} missing, {sounds.failed} failed")
        mixes = ("audio", "image,text,audio") if options.tiny else MIXES
        found: dict[str, Any] = {"failed": sounds.failed}
        for target, mix in [(options.spoken, "audio"), *((options.label, mix) for mix in mixes)]:
            training = es.train(
                folder / "s", target, inputs=mix.split(","), cv=5, out_of_fold=0, report=False, name="t", replace=True
            )
            found[f"{target} from {mix}"] = training.metrics["accuracy"].value
            print(f"{target} from {mix}: {score(training)}")
        found["curve"] = curve(es.Store.open(folder / "s"), options.label)
        print("\n| taken from | " + " | ".join(f"{rate:.0%}" for rate in RATES) + " |\n|---|" + "---|" * len(RATES))
        for modality, accuracy in found["curve"].items():
            print(f"| {modality} | " + " | ".join(f"{a:.3f}" for a in accuracy) + " |")
        for encoder, most in (("logmel", 400), (wav2vec2(folder, tiny=options.tiny), 60)):
            rate = cost(table, folder, encoder, 8 if options.tiny else most)
            kind = encoder.partition(":")[0]
            found[kind] = rate["end to end"] / rate["alone"]
            print(f"{kind}: {rate['end to end']:.1f} sounds/s end to end, {rate['alone']:.1f} alone: {found[kind]:.2f}")
    return found


if __name__ == "__main__":
    main()
