"""``finetune``: the network as the steps before left it, trained on the labels alone.

What pruning or factorizing took is mostly won back in a few epochs (Han et al. 2015, https://arxiv.org/abs/1506.02626,
section 3). Weights that were set to zero stay zero.
"""

from dataclasses import replace

from app.recipes import Step
from app.recipes.methods import Finetune
from worker.engine.methods.layers import check_trainable
from worker.engine.methods.lesson import Lesson, teach, training_samples
from worker.engine.state import Compressed, Context
from worker.engine.training.whole import graduated, whole


def finetune(compressed: Compressed, step: Step, context: Context) -> Compressed:
    """Train on the labels.

    Raises:
        Unsupported: ``unknown_layer``, ``no_layers``; ``task_unsupported`` where the labels' task has no loss;
            ``training_diverged``.
        InvalidDataset: ``training_required``, ``labels_required``, ``too_few_samples``.
    """
    if not isinstance(step, Finetune):
        raise TypeError(f"{type(step).__name__} is not Finetune")
    samples = training_samples(step, context, taught=False)
    check_trainable(compressed.network, step.layers)
    compressed = compressed.to("cpu")  # the training takes copies to the device
    network = compressed.network
    lesson = Lesson(
        step, context, network, network, samples, taught=False, pruned=compressed.pruned, statistics=1.0, fast=True
    )
    pupil, curves = teach(lesson, lambda points: whole(network, step.layers))
    return replace(compressed.with_curves(curves), network=graduated(pupil))
