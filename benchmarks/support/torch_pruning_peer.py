"""torch-pruning (https://github.com/VainF/Torch-Pruning) on the eager network, to a budget of multiply-accumulates.

``python -m benchmarks.support.torch_pruning_peer '{"network": ..., "state": ..., "macs_ratio": ..., "result": ...}'``
writes the pruned network as ``.pt2``, untrained, and prints what it took.
"""

import json
import time

import torch
import torch_pruning as tp

from benchmarks.support import glyphs, networks
from benchmarks.support.spending import order

#: Steps in which the ratio goes up until the budget is met.
_STEPS = 400


def main() -> None:
    job = order()
    torch.manual_seed(0)
    model = networks.TRAINED[job["network"]].make()
    model.load_state_dict(torch.load(job["state"], weights_only=True)["model"])
    model.eval()
    example = torch.zeros(1, 3, glyphs.SIZE, glyphs.SIZE)
    whole, _ = tp.utils.count_ops_and_params(model, example)
    last = [part for part in model.modules() if isinstance(part, torch.nn.Linear)][-1]
    started = time.perf_counter()
    pruner = tp.pruner.BasePruner(
        model,
        example,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.98,
        global_pruning=job["global"],
        iterative_steps=_STEPS,
        ignored_layers=[last],
        round_to=8,
    )
    macs = whole
    while macs > whole * job["macs_ratio"]:
        before = macs
        pruner.step()
        macs, _ = tp.utils.count_ops_and_params(model, example)
        if pruner.current_step >= _STEPS and macs == before:
            raise SystemExit(f"it stops at {macs / whole:.3f} of the multiply-accumulates")
    seconds = time.perf_counter() - started
    batch = torch.zeros(2, *example.shape[1:])
    program = torch.export.export(model, (batch,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, job["result"])
    print(json.dumps({"macs_ratio": macs / whole, "seconds": seconds}))


if __name__ == "__main__":
    main()
