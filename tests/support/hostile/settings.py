"""Folders of transformers whose settings ask for code, or for what nothing has."""

import json

from tests.support.hostile import good
from tests.support.hostile.case import ACCEPTED, Group, Make

SETTINGS = Group("config.json")
CODE = "__import__('os').system('touch canary')"
WEIGHTS = "weights_invalid"
SCHEMA = "schema_invalid"
ARCHITECTURE = "unsupported_architecture"
INCOMPLETE = "file_incomplete"
UNKNOWN = "unknown_format"
ANYHOW = (SCHEMA, ARCHITECTURE, INCOMPLETE, WEIGHTS, ACCEPTED)


def settings(**changes: object) -> Make:
    """The tiny BERT with other settings."""
    return lambda canary: good.zip_of(good.transformers_folder(**changes))


def config(data: bytes) -> Make:
    """It with these bytes as ``config.json``."""
    return lambda canary: good.zip_of(good.transformers_folder() | {"config.json": data})


_REFUSED = {
    "layers-huge": {"num_hidden_layers": 10**9},
    "layers-negative": {"num_hidden_layers": -1},
    "layers-beyond": {"num_hidden_layers": 2**70},
    "layers-float": {"num_hidden_layers": 1.5},
    "layers-text": {"num_hidden_layers": "1"},
    "layers-list": {"num_hidden_layers": [1] * 1000},
    "hidden-huge": {"hidden_size": 10**6},
    "hidden-beyond": {"hidden_size": 10**18},
    "hidden-zero": {"hidden_size": 0},
    "hidden-negative": {"hidden_size": -16},
    "vocabulary-huge": {"vocab_size": 10**6},
    "vocabulary-beyond": {"vocab_size": 10**12},
    "vocabulary-negative": {"vocab_size": -50},
    "positions-huge": {"max_position_embeddings": 10**6},
    "positions-zero": {"max_position_embeddings": 0},
    "intermediate-huge": {"intermediate_size": 10**6},
    "heads-zero": {"num_attention_heads": 0},
    "heads-odd": {"num_attention_heads": 3},
    "heads-negative": {"num_attention_heads": -2},
    "types-huge": {"type_vocab_size": 10**6},
    "labels-many": {"num_labels": 10**6},
    "padding-beyond": {"pad_token_id": 10**5},
    "padding-negative": {"pad_token_id": -1},
    "epsilon-huge": {"layer_norm_eps": 1e300},
    "kind-unknown": {"model_type": "evil"},
    "kind-path": {"model_type": "../../evil"},
    "kind-list": {"model_type": ["bert"]},
    "kind-object": {"model_type": {"bert": 1}},
    "class-code": {"architectures": [CODE]},
    "class-module": {"architectures": ["os.system"]},
    "class-private": {"architectures": ["__class__"]},
    "class-pipeline": {"architectures": ["pipeline"]},
    "class-other": {"architectures": ["ViTModel"]},
    "class-none": {"architectures": [None]},
    "class-text": {"architectures": "BertModel"},
    "activation-code": {"hidden_act": CODE},
    "activation-number": {"hidden_act": 7},
    "activation-list": {"hidden_act": ["gelu"]},
    "decoder": {"is_decoder": True},
    "quantized": {"quantization_config": {"quant_method": "awq"}},
    "remote-kind": {"model_type": "evil", "auto_map": {"AutoModel": "modeling_x.Evil"}},
    "dropout-huge": {"hidden_dropout_prob": 99},
    "dropout-negative": {"attention_probs_dropout_prob": -1},
    "attention-code": {"_attn_implementation": "evil/kernels"},
}
_HARMLESS = {
    "remote-code": {
        "auto_map": {"AutoModel": "modeling_x.Evil", "AutoConfig": "http://127.0.0.1/x--config.Evil"},
        "trust_remote_code": True,
    },
    "name-elsewhere": {"_name_or_path": "/etc/passwd", "_commit_hash": "../../.."},
    "torchscript": {"torchscript": True},
    "dtype-code": {"torch_dtype": CODE},
    "unknown-keys": {f"key{i}": i for i in range(5000)},
    "dunder-keys": {"__class__": "os.system", "__init__": 1, "__reduce__": [1]},
    "method-keys": {"from_dict": 1, "to_dict": "x", "save_pretrained": None},
    "labels-code": {"id2label": {"0": CODE}, "label2id": {CODE: 0}},
    "generation": {"generation_config": {"forced_bos_token_id": 10**9}},
    "task-specific": {"task_specific_params": {"a": {"b": CODE}}},
    "attention-other": {"attn_implementation": "kernels-community/evil"},
    "transformers-version": {"transformers_version": CODE},
    "position-kind": {"position_embedding_type": "evil"},
    "outputs": {"output_attentions": True, "output_hidden_states": True, "return_dict": False},
    "chunks": {"chunk_size_feed_forward": 7},
}
for _name, _changes in _REFUSED.items():
    SETTINGS.model(_name, settings(**_changes), *ANYHOW)
for _name, _changes in _HARMLESS.items():
    SETTINGS.model(_name, settings(**_changes), ACCEPTED, SCHEMA, ARCHITECTURE)
_JSON = {
    "deep": b"[" * 1_000_000,
    "deep-object": b'{"a":' * 100_000,
    "nan": json.dumps(good.BERT | {"hidden_size": float("nan")}).encode(),
    "infinity": json.dumps(good.BERT | {"layer_norm_eps": float("inf")}).encode(),
    "overflow": json.dumps(good.BERT).replace("16", "1e999999").encode(),
    "digits": json.dumps(good.BERT).replace("16", "9" * 10_000).encode(),
    "empty": b"",
    "list": b"[]",
    "null": b"null",
    "text": b"hello",
    "not-utf8": b'{"model_type": "\xff"}',
    "surrogate": b'{"model_type": "\\ud800"}',
    "python": b"{'model_type': 'bert'}",
    "key-twice": json.dumps(good.BERT).replace("{", '{"model_type": "evil", ', 1).encode(),
}
for _name, _data in _JSON.items():
    SETTINGS.model(f"json-{_name}", config(_data), SCHEMA, ARCHITECTURE, *([ACCEPTED] if _name == "key-twice" else []))
SETTINGS.model(
    "processor-deep",
    lambda c: good.zip_of(good.transformers_folder() | {"preprocessor_config.json": b"[" * 1_000_000}),
    ACCEPTED,
)
SETTINGS.model(
    "two-folders",
    lambda c: good.zip_of({f"{top}/{name}": data for top in "ab" for name, data in good.transformers_folder().items()}),
    UNKNOWN,
    INCOMPLETE,
)
