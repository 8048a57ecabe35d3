"""SparseGPT of nvidia-modelopt on the language model, in its own environment:
``python -m benchmarks.support.sparse_peer '{"model": ..., "calibration": ..., "result": ..., "threads": ...}'``.

It knows two of every four alone; like ours it prunes the head too. What it leaves are the weights, in float.
"""

import json
from pathlib import Path

import modelopt.torch.sparsity as mts
import numpy as np
import torch

from benchmarks.support import language
from benchmarks.support.language_peers import BATCH, STATE
from benchmarks.support.spending import order, spending


def main() -> None:
    job = order()
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    model = language.loaded(Path(job["model"]).parent / STATE)
    tokens = torch.from_numpy(np.load(job["calibration"])["input"])
    config = {"data_loader": list(tokens.split(BATCH)), "collect_func": lambda batch: batch}
    with spending() as report:
        pruned = mts.export(mts.sparsify(model, mode=[("sparsegpt", {"nn.Linear": {"*": {}}})], config=config))
    zeros = [float((layer.weight == 0).float().mean()) for layer in pruned.modules() if hasattr(layer, "weight")]
    np.savez(job["result"], **{name: value.detach().float().numpy() for name, value in pruned.state_dict().items()})
    print(json.dumps({**report, "zeros": max(zeros)}))


if __name__ == "__main__":
    main()
