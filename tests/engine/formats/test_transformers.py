"""Folders of transformers: read to the same numbers, whatever they are packed in, and nothing of theirs is run."""

import json
import tarfile
import zipfile

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from worker.engine import formats
from worker.engine.errors import InvalidModel, UnsafeFile, Unsupported, UserError
from worker.engine.formats.transformers_reader import ARCHITECTURES

TEXT = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
    "pad_token_id": 1,
}
VISION = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
IMAGE = {**VISION, "image_size": 32, "patch_size": 8}
STAGES = {"depths": [1, 1], "hidden_sizes": [8, 16]}
SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
TINY = {
    "albert": {**TEXT, "embedding_size": 8},
    "bert": TEXT,
    "camembert": TEXT,
    "distilbert": {"vocab_size": 50, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "pad_token_id": 1},
    "electra": {**TEXT, "embedding_size": 8},
    "mpnet": TEXT,
    "roberta": {**TEXT, "type_vocab_size": 1},
    "xlm-roberta": {**TEXT, "type_vocab_size": 1},
    "beit": IMAGE,
    "convnext": {**STAGES, "num_stages": 2, "image_size": 32},
    "convnextv2": {**STAGES, "num_stages": 2, "image_size": 32},
    "deit": IMAGE,
    "dinov2": {**VISION, "image_size": 32, "patch_size": 8, "mlp_ratio": 2},
    "efficientnet": {"image_size": 32, "width_coefficient": 0.25, "depth_coefficient": 0.1, "hidden_dim": 320},
    "mobilenet_v1": {"image_size": 32, "depth_multiplier": 0.25},
    "mobilenet_v2": {"image_size": 32, "depth_multiplier": 0.25},
    "mobilevit": {"image_size": 64, "hidden_sizes": [8, 12, 16], "neck_hidden_sizes": [4, 8, 8, 12, 12, 16, 32]},
    "poolformer": {"image_size": 32, "depths": [1, 1, 1, 1], "hidden_sizes": [4, 8, 8, 16]},
    "regnet": {**STAGES, "embedding_size": 8, "groups_width": 4},
    "resnet": {**STAGES, "embedding_size": 8},
    "segformer": {"image_size": 32, "depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16], "decoder_hidden_size": 16},
    "swin": SWIN,
    "swinv2": SWIN,
    "vit": IMAGE,
}
HEADED = (
    transformers.BertForSequenceClassification,
    transformers.BertForMaskedLM,
    transformers.RobertaForTokenClassification,
    transformers.DistilBertForQuestionAnswering,
    transformers.ResNetForImageClassification,
    transformers.SegformerForSemanticSegmentation,
    transformers.ViTForImageClassification,
)


def build(kind, cls=None):
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](**TINY[kind])
    return (cls or transformers.AutoModel.from_config)(config).eval()


def folder_of(model, folder, **options):
    model.save_pretrained(folder, **options)
    return folder


def zipped(folder, path, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, f"model/{file.relative_to(folder)}")
    return path


@torch.no_grad()
def agree(model, network, batch=3, words=6):
    arguments = []
    for spec in network.inputs:
        if spec.dtype == "int64":
            value = (
                torch.randint(2, 50, (batch, words)) if spec.name == "input_ids" else torch.ones(batch, words).long()
            )
            if spec.name == "attention_mask":
                value[0, 4:] = 0
            if spec.name == "token_type_ids":
                value[:, :3] = 0
        else:
            value = torch.randn(batch, *spec.shape[1:])
        arguments.append(value)
    wanted = model(**{spec.name: value for spec, value in zip(network.inputs, arguments, strict=True)})
    found = dict(zip((spec.name for spec in network.outputs), network.module(*arguments), strict=True))
    assert found
    for name, value in found.items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-4, atol=1e-5)


def test_the_table_is_covered():
    assert set(TINY) == set(ARCHITECTURES)


def some(cases, kept):
    """Every case, those that are not `kept` as slow ones."""
    return [case if case in kept else pytest.param(case, marks=pytest.mark.slow) for case in cases]


@pytest.mark.parametrize("kind", some(sorted(TINY), ("bert", "roberta", "resnet", "vit")))
def test_base_models(kind, tmp_path):
    model = build(kind)
    network = formats.read(zipped(folder_of(model, tmp_path / "folder"), tmp_path / "model.zip"))
    assert network.format == "transformers"
    assert all(spec.shape[0] == "batch" for spec in network.inputs + network.outputs)
    agree(model, network)
    if ARCHITECTURES[kind] == "text":
        assert all(spec.shape[1] == "sequence" for spec in network.inputs)
        agree(model, network, batch=1, words=13)


@pytest.mark.parametrize("cls", some(HEADED, (transformers.BertForMaskedLM,)), ids=lambda cls: cls.__name__)
def test_heads(cls, tmp_path):
    model = build(cls.config_class.model_type, cls)
    network = formats.read(zipped(folder_of(model, tmp_path / "folder"), tmp_path / "model.zip"))
    agree(model, network)


def test_shards_tied_weights_and_a_compressed_tar(tmp_path):
    model = build("bert", transformers.BertForMaskedLM)
    folder = folder_of(model, tmp_path / "folder", max_shard_size="10KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    path = tmp_path / "model.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, "./some/name")
    network = formats.read(path)
    agree(model, network)
    modules = dict(network.module.named_modules())
    table = modules["bert.embeddings.word_embeddings"].weight
    assert any(m.weight is table for n, m in modules.items() if n.startswith("cls") and hasattr(m, "weight"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_weights_are_widened(dtype, tmp_path):
    model = build("vit")
    folder = folder_of(model.to(dtype), tmp_path / "folder")
    network = formats.read(zipped(folder, tmp_path / "model.zip"))
    assert network.notes == [f"Weights of {str(dtype).removeprefix('torch.')} were widened to float32."]
    agree(model.float(), network)


def changed(tmp_path, kind="bert", **settings):
    folder = folder_of(build(kind), tmp_path / "folder")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))
    return folder


@pytest.mark.parametrize(
    ("settings", "error", "code"),
    [
        ({"model_type": "llama"}, Unsupported, "unsupported_architecture"),
        ({"model_type": ["bert"]}, Unsupported, "unsupported_architecture"),
        ({"architectures": ["BertLMHeadModel"]}, Unsupported, "unsupported_architecture"),
        ({"architectures": ["os.system"]}, Unsupported, "unsupported_architecture"),
        ({"architectures": ["ViTModel"]}, Unsupported, "unsupported_architecture"),
        ({"architectures": ["BertForMaskedLM"]}, InvalidModel, "file_incomplete"),
        ({"quantization_config": {"quant_method": "gptq"}}, Unsupported, "unsupported_architecture"),
        ({"num_hidden_layers": 10**9}, InvalidModel, "schema_invalid"),
        ({"num_hidden_layers": 3}, InvalidModel, "file_incomplete"),
        ({"vocab_size": 10**12}, InvalidModel, "schema_invalid"),
        ({"vocab_size": 10**6}, InvalidModel, "file_incomplete"),
        ({"hidden_size": 18}, InvalidModel, "weights_invalid"),
        ({"architectures": [["BertModel"]]}, Unsupported, "unsupported_architecture"),
        ({"is_decoder": True}, Unsupported, "unsupported_architecture"),
        ({"num_attention_heads": 0}, InvalidModel, "weights_invalid"),
        ({"num_labels": 9_000_000}, InvalidModel, "schema_invalid"),
        ({"layer_norm_eps": float("nan")}, InvalidModel, "schema_invalid"),
        ({"initializer_range": 1e300}, InvalidModel, "schema_invalid"),
        ({"pad_token_id": -5}, InvalidModel, "schema_invalid"),
        ({"hidden_size": "wide"}, InvalidModel, None),
        ({"hidden_act": "__import__('os')"}, InvalidModel, None),
    ],
    ids=str,
)
def test_refusals(settings, error, code, tmp_path):
    path = zipped(changed(tmp_path, **settings), tmp_path / "model.zip")
    with pytest.raises(error) as caught:
        formats.read(path)
    assert code in (None, caught.value.code)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("vit", {"patch_size": 0}),
        ("vit", {"num_attention_heads": 0}),
        ("convnext", {"image_size": 16_000}),
        ("albert", {"inner_group_num": 1000}),
        ("efficientnet", {"depth_coefficient": 300.0}),
        ("efficientnet", {"depth_coefficient": float("inf")}),
        ("mobilenet_v2", {"depth_divisible_by": 0}),
        ("regnet", {"groups_width": 0}),
    ],
    ids=str,
)
def test_settings_that_make_no_sense(kind, settings, tmp_path):
    path = zipped(changed(tmp_path, kind, **settings), tmp_path / "model.zip")
    if settings == {"image_size": 16_000}:  # beyond what is read: images are taken as they usually are
        assert formats.read(path).inputs[0].shape[2:] == (224, 224)
        return
    with pytest.raises(UserError):
        formats.read(path)


def test_a_model_without_a_word_for_padding(tmp_path):
    path = zipped(changed(tmp_path, "distilbert", pad_token_id=None), tmp_path / "model.zip")
    assert formats.read(path).batched


def safetensors(entries, body):
    header = json.dumps(entries).encode()
    return len(header).to_bytes(8, "little") + header + body


def entry(dtype, shape, start, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "entries",
    [
        {"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 0, 8)},
        {"a": entry("F32", [1], 4, 8)},
        {"a": entry("F32", [0, 2**47, 2**47], 0, 0)},
        {"a": entry("F32", [4], 0, 16)},
        {"a": entry("BOOL", [8], 0, 8)},
        {"a": entry("F4", [2], 0, 1)},
    ],
)
def test_headers_that_do_not_fit(entries, tmp_path):
    folder = changed(tmp_path)
    (folder / "model.safetensors").write_bytes(safetensors(entries, b"\2" * 8))
    with pytest.raises(UserError):
        formats.read(zipped(folder, tmp_path / "model.zip"))


def test_each_weight_comes_from_the_shard_that_the_index_names(tmp_path):
    model = build("bert")
    folder = folder_of(model, tmp_path / "folder", max_shard_size="10KB")
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    shards = {file: load_file(folder / file) for file in set(index.values())}
    for name, file in index.items():
        other = next(shard for shard in shards if shard != file)
        shards[other].setdefault(name, torch.zeros_like(shards[file][name]))
    for file, tensors in shards.items():
        save_file(tensors, folder / file, {"format": "pt"})
    agree(model, formats.read(zipped(folder, tmp_path / "model.zip")))


def test_code_of_the_folder_is_never_run(tmp_path):
    folder = changed(
        tmp_path,
        auto_map={"AutoModel": "evil.Evil", "AutoConfig": "evil.Config"},
        _attn_implementation="someone/kernel",
    )
    marker = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')")
    formats.read(zipped(folder, tmp_path / "model.zip"))
    assert not marker.exists()


def test_pickled_weights_are_refused(tmp_path):
    folder = changed(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UnsafeFile):
        formats.read(zipped(folder, tmp_path / "model.zip"))


@pytest.mark.parametrize("damage", ["short", "gap", "header", "missing"])
def test_damaged_weights(damage, tmp_path):
    folder = changed(tmp_path)
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    if damage == "short":
        data = data[:-100]
    if damage == "gap":
        data = data.replace(b'"data_offsets":[0,', b'"data_offsets":[4,')
    if damage == "header":
        data[:8] = (2**40).to_bytes(8, "little")
    if damage == "missing":
        (folder / "config.json").rename(folder / "model.safetensors.index.json")
    file.write_bytes(data)
    with pytest.raises(InvalidModel):
        formats.read(zipped(folder, tmp_path / "model.zip"))
