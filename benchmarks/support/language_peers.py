"""One quantization of the language model by a peer, in its own environment:
``python -m benchmarks.support.language_peers '{...}'``.

Peers start from the module and its calibration tokens. What they leave are the weights that they have chosen, in
float, so that one program judges all; ``quantize`` counts from the loaded float model to these weights, after a run on
a few tokens: neither imports nor what is made at a first use count. Group sizes, widths and what stays in float are
the same for all; everything else is each peer's default.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.support import language
from benchmarks.support.spending import order, spending

STATE = "training.pt"
BATCH = 8

Weights = dict[str, Tensor]
Run = Callable[[], Weights]


def _layers(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers that everyone quantizes."""
    return {
        path: layer
        for path, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and not path.endswith("lm_head")
    }


def modelopt(model: language.Language, tokens: Tensor, bits: int, algorithm: str, group: int) -> Run:
    import modelopt.torch.quantization as mtq  # noqa: PLC0415 (each peer alone)

    config = {
        "quant_cfg": [
            {"quantizer_name": "*", "enable": False},
            {"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": bits, "block_sizes": {-1: group}}},
            {"quantizer_name": "*lm_head*", "enable": False},
        ],
        "algorithm": {"rtn": "max", "gptq": {"method": "gptq"}, "awq": {"method": "awq_lite", "alpha_step": 0.1}}[
            algorithm
        ],
    }

    def feed(module: nn.Module) -> None:
        for batch in tokens.split(BATCH):
            module(batch)

    def run() -> Weights:
        quantized = mtq.quantize(model, config, feed)
        mtq.fold_weight(quantized)
        found = {}
        for path, layer in _layers(quantized).items():
            scale = getattr(getattr(layer, "input_quantizer", None), "pre_quant_scale", None)
            # AWQ multiplies the input by it.
            found[f"{path}.weight"] = layer.weight if scale is None else layer.weight * scale
        return found

    return run


def hqq(model: language.Language, tokens: Tensor, bits: int, algorithm: str, group: int) -> Run:
    from hqq.core.quantize import Quantizer  # noqa: PLC0415 (each peer alone)

    def run() -> Weights:
        found = {}
        for path, layer in _layers(model).items():
            # axis 1: groups are of a channel's inputs, as everyone else has them.
            packed, meta = Quantizer.quantize(
                layer.weight.data, nbits=bits, group_size=group, axis=1, device="cpu", compute_dtype=torch.float32
            )
            found[f"{path}.weight"] = Quantizer.dequantize(packed, meta)
        return found

    return run


def llmcompressor(model: language.Language, tokens: Tensor, bits: int, algorithm: str, group: int) -> Run:
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme  # noqa: PLC0415
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize  # noqa: PLC0415
    from datasets import Dataset  # noqa: PLC0415
    from llmcompressor import oneshot  # noqa: PLC0415 (each peer alone)
    from llmcompressor.modifiers.gptq import GPTQModifier  # noqa: PLC0415
    from llmcompressor.modifiers.quantization import QuantizationModifier  # noqa: PLC0415
    from llmcompressor.modifiers.transform.awq import AWQModifier  # noqa: PLC0415
    from llmcompressor.pipelines.cache import IntermediatesCache  # noqa: PLC0415
    from tokenizers import Tokenizer, models  # noqa: PLC0415
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: PLC0415

    config = LlamaConfig(
        vocab_size=language.VOCABULARY,
        hidden_size=language.WIDTH,
        intermediate_size=language.INNER,
        num_hidden_layers=language.DEPTH,
        num_attention_heads=language.HEADS,
        num_key_value_heads=language.HEADS,
        max_position_embeddings=language.LENGTH,
        rms_norm_eps=language.EPSILON,
        rope_parameters={"rope_type": "default", "rope_theta": language.THETA},
        tie_word_embeddings=False,
        attn_implementation="eager",
    )
    made = LlamaForCausalLM(config)
    made.load_state_dict(model.state_dict())
    folder = tempfile.TemporaryDirectory()  # it looks again at the files that a model came from
    made.save_pretrained(folder.name)
    theirs = LlamaForCausalLM.from_pretrained(folder.name, dtype=torch.float32).eval()
    with torch.no_grad():  # their model and ours are the same
        torch.testing.assert_close(theirs(tokens[:2]).logits, model(tokens[:2]), atol=1e-3, rtol=1e-3)
    arguments = QuantizationArgs(num_bits=bits, type="int", symmetric=False, strategy="group", group_size=group)
    scheme = {"config_groups": {"all": QuantizationScheme(targets=["Linear"], weights=arguments)}}
    quantizer = GPTQModifier if algorithm == "gptq" else QuantizationModifier
    recipe: list[Any] = [quantizer(**scheme, ignore=["lm_head"])]
    if algorithm == "awq":
        IntermediatesCache.pin_memory = lambda *_: None  # fails where there is no accelerator
        recipe.insert(0, AWQModifier())
    data = Dataset.from_dict({"input_ids": tokens.tolist(), "attention_mask": torch.ones_like(tokens).tolist()})
    # Wanted wherever there are data, and not used for tokens.
    nobody = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), pad_token="<pad>")

    def run() -> Weights:
        oneshot(
            model=theirs,
            processor=nobody,
            dataset=data,
            recipe=recipe,
            num_calibration_samples=len(tokens),
            max_seq_length=language.LENGTH,
            batch_size=BATCH,
            shuffle_calibration_samples=False,
        )
        found: Weights = dict(theirs.state_dict())
        for path, layer in _layers(theirs).items():
            found[f"{path}.weight"] = fake_quantize(
                layer.weight, layer.weight_scale, layer.weight_zero_point, arguments
            )
        folder.cleanup()
        return {name: value for name, value in found.items() if name in model.state_dict()}

    return run


PEERS: dict[str, Callable[..., Run]] = {"modelopt": modelopt, "hqq": hqq, "llmcompressor": llmcompressor}


def main() -> None:
    job = order()
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    result = Path(job["result"])
    state = Path(job["model"]).parent / STATE
    before = dict(language.loaded(state).state_dict())
    tokens = torch.from_numpy(np.load(job["calibration"])["input"])
    PEERS[job["peer"]](language.loaded(state), tokens[:BATCH], **job["options"])()
    run = PEERS[job["peer"]](language.loaded(state), tokens, **job["options"])
    with spending() as report:
        weights = run()
    after = {**before, **{name: value.detach().float() for name, value in weights.items()}}
    np.savez(result, **{name: value.numpy() for name, value in after.items()})
    print(json.dumps({**report, "quantize": report["seconds"]}))


if __name__ == "__main__":
    main()
