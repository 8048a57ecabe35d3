"""``factorize.tucker``: convolutions as a small one between two of 1x1."""

from app.recipes import Step
from app.recipes.methods import FactorizeTucker
from worker.engine.factorized.ranks import RankRule
from worker.engine.factorized.replace import Site, settings_of
from worker.engine.factorized.tucker import chosen_ranks, tucker, weights
from worker.engine.methods.factorize import NOT_SMALLER, Verdict, candidates, each, factorized
from worker.engine.methods.factorize_convolution import FAR, KINDS, MOST_BAYES, NOISE, in_the_middle, refused, spatial
from worker.engine.state import Compressed, Context


def factorize_tucker(compressed: Compressed, step: Step, context: Context) -> Compressed:
    """Replace convolutions whose kernel is larger than 1.

    Raises:
        Unsupported: ``unknown_layer``, ``no_layers``, ``invalid_order``.
    """
    if not isinstance(step, FactorizeTucker):
        raise TypeError(f"{type(step).__name__} is not FactorizeTucker")
    found = candidates(compressed, step, KINDS, spatial)
    return factorized(compressed, step, context, found, each(lambda site, _: _judged(site, step), context))


def _judged(site: Site, step: FactorizeTucker) -> Verdict:
    why = refused(site)
    if why is not None:
        return why
    kernel, rule = site.weight, RankRule.of(step)
    outputs, inputs = kernel.shape[:2]
    ranks = step.ranks or chosen_ranks(kernel, rule)
    if min(ranks) < 1:
        return NOISE
    ranks = min(ranks[0], inputs), min(ranks[1], outputs)
    rounded = ranks if step.ranks else (rule.rounded(ranks[0], inputs), rule.rounded(ranks[1], outputs))
    # Rounding is for the kernels' sake: not where it takes away what is won.
    best = next((pair for pair in (rounded, ranks) if weights(kernel.shape, pair) < kernel.numel()), None)
    if best is None:
        return NOT_SMALLER
    found = tucker(kernel, best)
    if step.ranks is None and rule.lost is None and rule.ratio is None and found.error > MOST_BAYES:
        return FAR
    reduce, core, expand = found.reduce, found.core, found.expand
    # A side that keeps all of its channels needs no matrix of its own.
    if best[0] == inputs:
        core = (core.movedim(1, -1) @ reduce).movedim(-1, 1)
    if best[1] == outputs:
        core = (core.movedim(0, -1) @ expand.mT).movedim(-1, 0)
    return in_the_middle(
        reduce if best[0] < inputs else None,
        {"core": (core, settings_of(site.layer))},
        expand if best[1] < outputs else None,
        site.bias,
        ranks=best,
        error=found.error,
    )
