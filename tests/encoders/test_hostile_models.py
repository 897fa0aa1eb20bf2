"""A model that somebody else made runs no code, and one that a store brings along is not loaded unasked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from test_encoders import TINY_CLIP

import embedstore as es
from embedstore import registry
from embedstore.encoders import load_encoder, trust
from embedstore.encoders.hash import HashEncoder
from embedstore.errors import EmbedstoreError, EncoderError, MissingDependencyError
from embedstore.sources import MemorySource

CODE = "from pathlib import Path\nPath({ran!r}).touch()\nclass Evil:\n    def __init__(self, *a, **k): pass\n"
AUTO_MAP = dict.fromkeys(("AutoConfig", "AutoModel", "AutoTokenizer", "AutoProcessor"), "modeling_x.Evil")
BERT = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}


class Pickled:
    """Runs a command when it is unpickled."""

    def __init__(self, ran: Path) -> None:
        self.ran = str(ran)

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.ran}",)


def planted(folder: Path, ran: Path, **files: object) -> Path:
    """A model folder with a Python file that leaves `ran` behind; ``a__b`` is the file ``a.b``."""
    folder.mkdir(parents=True)
    (folder / "modeling_x.py").write_text(CODE.format(ran=str(ran)))
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.write_text(json.dumps(content))
    return folder


def custom_module(folder: Path, ran: Path) -> str:
    modules = [{"idx": 0, "name": "0", "path": "", "type": "modeling_x.Evil"}]
    return f"st:{planted(folder, ran, modules__json=modules, config__json=BERT)}"


def custom_class(folder: Path, ran: Path) -> str:
    return f"st:{planted(folder, ran, config__json={'model_type': 'evil', 'auto_map': AUTO_MAP, 'architectures': ['Evil']})}"


def custom_options(folder: Path, ran: Path) -> str:
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    trusted = {"trust_remote_code": True}
    options = {"max_seq_length": 8, **dict.fromkeys(("model_args", "model_kwargs", "config_args", "tokenizer_args"), trusted)}
    config = {"model_type": "evil", "auto_map": AUTO_MAP}
    made = planted(folder, ran, modules__json=modules, config__json=config, sentence_bert_config__json=options)
    return f"st:{made}"


def custom_activation(folder: Path, ran: Path) -> str:
    """A name that is imported from the search path of modules: the folder a command runs in may be on it."""
    modules = [{"idx": 0, "name": "0", "path": "0", "type": "sentence_transformers.models.Dense"}]
    made = planted(folder, ran, modules__json=modules)
    (made / "0").mkdir()
    dense = {"in_features": 8, "out_features": 8, "bias": True, "activation_function": "modeling_x.Evil"}
    (made / "0" / "config.json").write_text(json.dumps(dense))
    return f"st:{made}"


def tokenizer_of_open_clip(folder: Path, ran: Path) -> str:
    text = {**TINY_CLIP["text_cfg"], "hf_tokenizer_name": "x/y", "tokenizer_kwargs": {"trust_remote_code": True}}  # type: ignore[dict-item]
    config = {"model_cfg": {**TINY_CLIP, "text_cfg": text}, "preprocess_cfg": {"size": 32}}
    tokenizer = {"auto_map": {"AutoTokenizer": ["modeling_x.Evil", None]}, "tokenizer_class": "Evil"}
    made = planted(folder, ran, open_clip_config__json=config, tokenizer_config__json=tokenizer, config__json=BERT)
    save_tiny_clip(made)
    return f"openclip:local-dir:{made}"


def save_tiny_clip(folder: Path) -> None:
    import open_clip
    from safetensors.torch import save_file

    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    save_file(
        open_clip.CLIP(**{**config, "text_cfg": TINY_CLIP["text_cfg"]}).state_dict(), folder / "open_clip_model.safetensors"
    )


def pickle_of_open_clip(folder: Path, ran: Path) -> str:
    import torch

    config = {"model_cfg": TINY_CLIP, "preprocess_cfg": {"size": 32}}
    made = planted(folder, ran, open_clip_config__json=config)
    torch.save(Pickled(ran), made / "open_clip_pytorch_model.bin")
    return f"openclip:local-dir:{made}"


def pickle_of_timm(folder: Path, ran: Path) -> str:
    import torch

    made = planted(folder, ran, config__json={"architecture": "test_vit", "num_classes": 5, "pretrained_cfg": {}})
    torch.save(Pickled(ran), made / "pytorch_model.bin")
    return f"timm:local-dir:{made}"


def pickled_file(folder: Path, ran: Path) -> str:
    import torch

    torch.save(Pickled(ran), planted(folder, ran) / "weights.pth")
    return f"timm:test_vit/{folder / 'weights.pth'}"


def pickle_of_transformers(folder: Path, ran: Path) -> str:
    import torch

    made = planted(folder, ran, config__json={**BERT, "vocab_size": 8, "max_position_embeddings": 8})
    torch.save(Pickled(ran), made / "pytorch_model.bin")
    return f"st:{made}"


PLANTED = [
    custom_module,
    custom_class,
    custom_options,
    custom_activation,
    tokenizer_of_open_clip,
    pickle_of_open_clip,
    pickle_of_timm,
    pickled_file,
    pickle_of_transformers,
]


def encode(name: str, modality: str) -> None:
    encoder = load_encoder(name, modality, runtime="torch")
    encoder.encode([encoder.prepare(b"words")])


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_no_model_runs_code(
    plant: Callable[[Path, Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ran = tmp_path / "ran"
    name = plant(tmp_path / "model", ran)
    monkeypatch.chdir(tmp_path / "model")
    monkeypatch.syspath_prepend(str(tmp_path / "model"))  # as where a script lies beside the model
    modality = "image" if name.startswith("timm") else "text"
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked whether to run code"))
    with pytest.raises(EmbedstoreError) as refused:
        encode(name, modality)
    assert "\n" not in str(refused.value)
    assert not ran.exists()


def test_the_planted_code_would_run_if_it_were_trusted(tmp_path: Path) -> None:
    """What the test above looks for happens where a model is trusted."""
    import torch

    ran = tmp_path / "ran"
    name = custom_class(tmp_path / "model", ran)
    code = f"import transformers; transformers.AutoConfig.from_pretrained({name.removeprefix('st:')!r}, trust_remote_code=True)"
    subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, env={**os.environ, "HF_HOME": str(tmp_path)})
    assert ran.exists()
    ran.unlink()
    pickled_file(tmp_path / "pickled", ran)
    torch.load(tmp_path / "pickled" / "weights.pth", weights_only=False)
    assert ran.exists()


def test_sentence_transformers_before_6_is_refused_before_a_model_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        registry, "metadata_version", lambda name: "5.6.0" if name == "sentence-transformers" else version(name)
    )
    with pytest.raises(MissingDependencyError, match=r"sentence-transformers 5\.6\.0 .* needs 6 or newer.*pip install -U"):
        load_encoder(f"st:{tmp_path}/absent", "text")


def store_naming(path: Path, name: str) -> es.Store:
    """A store whose texts' encoder is called `name`."""
    es.embed(MemorySource({"id": ["a", "b"], "text": ["one", "two"]}), path, text=HashEncoder(8, "text", name))
    return es.Store.open(path)


@pytest.mark.parametrize("place", ["inside", "inside by a link", "beside, relative"])
def test_a_store_s_own_model_is_not_loaded(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran, path = tmp_path / "ran", tmp_path / "a.store"
    monkeypatch.chdir(tmp_path)
    model = path / "model" if place.startswith("inside") else tmp_path / "model"
    name = {
        "inside": f"st:{model}",
        "inside by a link": f"st:{tmp_path / 'link'}",
        "beside, relative": "st:model",
    }[place]
    (tmp_path / "link").symlink_to(model)
    store = store_naming(path, name)
    custom_module(model, ran)
    line = rf"names a model .*--allow-model {tmp_path}"
    with pytest.raises(EncoderError, match=line):
        es.search(store, text="words")
    with pytest.raises(EncoderError, match=line):
        es.embed(MemorySource({"id": ["c"], "text": ["three"]}), path)
    with pytest.raises(EncoderError, match="could not be loaded"):
        es.search(es.Store.open(store.path, allow_models=[model]), text="words")  # loaded, and still no code
    with pytest.raises(EncoderError, match="could not be loaded"):
        es.embed(MemorySource({"id": ["c"], "text": ["three"]}), path, allow_models=[model])
    assert not ran.exists()


def test_predict_does_not_load_a_model_that_a_store_brings(tmp_path: Path) -> None:
    path = tmp_path / "a.store"
    data = {"id": [str(i) for i in range(40)], "text": [f"t{i}" for i in range(40)], "label": ["a", "b"] * 20}
    es.embed(MemorySource(data), path, text=HashEncoder(8, "text", f"st:{path / 'model'}"))
    es.train(es.Store.open(path), "label", report=False)
    custom_module(path / "model", tmp_path / "ran")
    with pytest.raises(EncoderError, match="--allow-model"):
        es.predict(path, "label", MemorySource({"id": ["x"], "text": ["new"]}))
    assert not (tmp_path / "ran").exists()


def test_an_absolute_path_outside_the_store_is_the_user_s_own(tmp_path: Path) -> None:
    trust.refuse_foreign(f"st:{tmp_path / 'model'}", tmp_path / "a.store")
    trust.refuse_foreign("st:sentence-transformers/all-MiniLM-L6-v2", tmp_path)
    trust.refuse_foreign("openclip:ViT-B-32/laion2b_s34b_b79k", tmp_path)
    trust.refuse_foreign("timm:hf-hub:org/name", tmp_path)
    trust.refuse_foreign("minilm", tmp_path)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("st:./m", "./m"),
        ("st:~/m@128", "~/m"),
        ("st:org/name", None),
        ("timm:local-dir:model@token", "model"),
        ("timm:resnet50/m/w.pth", "m/w.pth"),
        ("openclip:local-dir:../m", "../m"),
        ("openclip:ViT-B-32/tag", None),
        ("openclip:ViT-B-32/./w.safetensors", "./w.safetensors"),
        ("clip", None),
        ("hash:8", None),
    ],
)
def test_paths_in_names_become_absolute(name: str, path: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert trust.local_path(name) == path
    made = trust.absolute_name(name)
    whole = name if path is None else name.replace(path, os.path.abspath(os.path.expanduser(path)))
    assert made == whole
    assert trust.absolute_name(made) == made


def test_what_a_user_typed_is_recorded_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    monkeypatch.chdir(tmp_path)
    timm.models.save_for_hf(timm.create_model("test_vit", num_classes=5), tmp_path / "vit", safe_serialization=True)
    spec = load_encoder("timm:local-dir:vit@token", "image").spec
    assert spec.name == f"timm:local-dir:{tmp_path / 'vit'}@token"
