"""What do sounds tell, beside pictures and texts of the same items, and what does it cost to embed them?

    python -m benchmarks.sounds [--tiny] [--label label] [--spoken language] [--cost] [--turns 5] TABLE

TABLE has columns ``image``, ``text``, ``audio``, a label and what is heard alone (``--spoken``). It is embedded by one call
(effnet-lite0, minilm, logmel). Then: a linear head on sounds for what is spoken; linear heads for the label on every mix of
modalities, 5 folds; a gated head on all three of which each modality is taken from a share of the test items.

Cost: sounds a second from payloads to committed vectors, over those of the forward pass alone. The forward pass is the network
on prepared windows of a wav2vec 2.0 of random weights (768-d, 6 layers), and on prepared frames of films (eight each,
320 × 240, effnet-lite0); of logmel, which has no network, decoding and spectrogram in two threads (and, beside it, the
spectrogram alone). All in this process, by turns; of each pair of successive turns the ratio, of which the median and the best
are shown, since the machine may do other work. ``--cost`` measures that alone.
"""

from __future__ import annotations

import argparse
import io
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
from embedstore._core.threads import side_by_side
from embedstore.encoders import load_encoder
from embedstore.encoders.logmel import RATE, log_mel, statistics
from embedstore.encoders.payloads.sounds import decode_sound
from embedstore.heads import make_head
from embedstore.heads.base import Data
from embedstore.sources import open_source

MIXES = ("image", "text", "audio", "image,audio", "text,audio", "image,text", "image,text,audio")
FILMS = 24
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


def ratios(name: str, count: int, whole: Callable[[], Any], alone: Callable[[], Any], turns: int) -> float:
    """The best ratio of two successive turns; what was measured is printed."""
    found = []
    for _ in range(turns):
        seconds = []
        for work in (alone, whole):
            started = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - started)
        found.append((seconds[0] / seconds[1], count / seconds[1], count / seconds[0]))
    best, middle = max(found), sorted(found)[turns // 2]
    print(f"{name}: {best[1]:.1f}/s end to end, {best[2]:.1f} alone: {best[0]:.2f} (median of {turns}: {middle[0]:.2f})")
    return best[0]


def in_threads(work: Callable[[Any], Any], given: list[Any]) -> None:
    with side_by_side(), ThreadPoolExecutor(2) as pool:
        list(pool.map(work, given))


def cost(name: str, modality: str, given: list[bytes], encoder: str, folder: Path, turns: int, each: int = 1) -> float:
    """End to end over the forward pass alone."""
    data = es.sources.MemorySource({"id": [str(i) for i in range(len(given))], modality: given})
    made: Any = load_encoder(encoder, modality)
    runs = iter(range(1000))

    def whole() -> None:
        es.embed(data, folder / f"{name}{next(runs)}", **{modality: made})

    def forward() -> None:
        for lo in range(0, len(prepared), made.batch_size):
            made.encode(prepared[lo : lo + made.batch_size])

    if encoder != "logmel":
        prepared = [made.prepare(payload) for payload in given]
        forward()
        return ratios(name, each * len(given), whole, forward, turns)
    samples = [decode_sound(payload, RATE) for payload in given]
    spectra = lambda: in_threads(lambda x: statistics(log_mel(x)), samples)  # noqa: E731
    ratios(f"{name}, spectrogram alone", len(given), whole, spectra, turns)
    return ratios(name, len(given), whole, lambda: in_threads(made.prepare, given), turns)


def films(count: int, size: tuple[int, int] = (320, 240), frames: int = 75) -> list[bytes]:
    """Three seconds of a camera over a pattern each, a key frame every second."""
    import av

    found = []
    for seed in range(count):
        out, rng = io.BytesIO(), np.random.default_rng(seed)
        pattern = np.kron(rng.integers(0, 256, (size[1] // 16, size[0] // 8, 3)), np.ones((16, 16, 1))).astype(np.uint8)
        with av.open(out, "w", format="mp4") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt, stream.gop_size, stream.bit_rate = *size, "yuv420p", 25, 1_000_000
            for number in range(frames):
                view = np.ascontiguousarray(pattern[:, 4 * number : 4 * number + size[0]])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(view, format="rgb24")))
            container.mux(stream.encode())
        found.append(out.getvalue())
    return found


def costs(table: Path, folder: Path, *, tiny: bool, turns: int) -> dict[str, float]:
    """The ratio of each encoder."""
    network = wav2vec2(folder, tiny=tiny)
    frames, encoder = (2, "frames:2:hash:16") if tiny else (8, "frames:8:effnet-lite0")
    return {
        "logmel": cost("logmel", "audio", payloads(table, 8 if tiny else 400), "logmel", folder, turns),
        "hf-audio": cost("hf-audio", "audio", payloads(table, 8 if tiny else 60), network, folder, turns),
        "frames": cost("frames", "video", films(2 if tiny else FILMS), encoder, folder, turns, each=frames),
    }


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
    parser.add_argument("--cost", action="store_true", help="measure that alone")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = tiny_table(folder / "data") if options.tiny else options.table
        if options.cost:
            return costs(table, folder, tiny=options.tiny, turns=options.turns)
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
        found |= costs(table, folder, tiny=options.tiny, turns=1 if options.tiny else options.turns)
    return found


if __name__ == "__main__":
    main()
