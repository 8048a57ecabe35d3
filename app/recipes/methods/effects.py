"""What a step does to a model and what it costs, as far as its parameters alone tell: the data that estimates rest on.

A method overrides `Step.effects`; whoever estimates looks at these classes alone and at no method's name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

#: How a target writes a stored weight: each has its own row in the table of what graphs cost.
Form = Literal["integer", "dynamic", "float", "groups", "codes"]

#: Granularity of a grid -> what shares a scale.
SHARED: Final[Mapping[str, Literal["channel", "layer"]]] = {"channel": "channel", "tensor": "layer"}


@dataclass(frozen=True)
class Storage:
    """How weights of few bits are stored.

    Attributes:
        bits: of a weight; an average where layers differ.
        form: how they are written, see `Form`.
        per: what shares a scale: a channel, a layer, or so many weights of a channel; None: nothing has a scale.
        points: whether each scale has a zero point beside it.
        centroids: values in a codebook, which then stands in place of the scales; each stands for `vector` weights.
        tables: whether embeddings, recurrent layers and 3-D convolutions are stored too, where the target can.
        ends: whether the first and the last layer are.
        total_ratio: what is stored of all parameters, over what they take in float; overrides `bits` where given.
    """

    bits: float
    form: Form
    per: Literal["channel", "layer"] | int | None = "channel"
    points: bool = False
    centroids: int = 0
    vector: int = 1
    tables: bool = True
    ends: bool = True
    total_ratio: float | None = None


@dataclass(frozen=True)
class Narrowed:
    """Fewer channels in every layer, but for the model's own inputs and outputs.

    Attributes:
        share: of the channels that stay; None beside `budget`.
        budget: share of `of` that stays, at most.
        round_to: channels left are a multiple of this.
        competing: channels of all layers compete, so that it is not known how many stay in each.
    """

    share: float | None
    budget: float = 1.0
    of: Literal["macs", "parameters"] = "macs"
    round_to: int = 1
    competing: bool = False


@dataclass(frozen=True)
class Factorized:
    """Layers as products of smaller ones.

    Attributes:
        ratio: of the rank to the one at which the factors are as large as the layer; None: it depends on the weights.
        ranks: channels between the factors, where they are given.
        pointwise: linear layers and 1x1 convolutions, else the larger convolutions.
        parts: layers in place of one.
        round_to: ranks are a multiple of this.
    """

    ratio: float | None
    pointwise: bool
    parts: int
    ranks: tuple[int, int] | None = None
    round_to: int = 1


@dataclass(frozen=True)
class Work:
    """What a step computes.

    Attributes:
        samples: calibration samples that it looks at, at most.
        passes: forward passes over each of them.
        epochs: passes over the training samples that train, each about three forward passes.
        batch: samples of such a training that are in memory together.
        taught: whether another network answers the training samples too.
        held: networks beside the current one that are in memory (an original, a teacher), in float.
        tries: passes over held-back training samples, as of a search.
        per_weight: steps of arithmetic for each weight, beside the passes (clustering, rounding one by one).
        rows: whether inputs of layers are kept, up to the bound that the engine sets.
    """

    samples: int = 0
    passes: float = 0.0
    epochs: int = 0
    batch: int = 0
    taught: bool = False
    held: float = 0.0
    tries: int = 0
    per_weight: float = 0.0
    rows: bool = False


@dataclass(frozen=True)
class Effects:
    """What a step does.

    Attributes:
        stored: how the weights of its layers are stored afterwards; None: as they were.
        shape: what becomes of the layers' shapes; None: they stay.
        depth: share of the repeated blocks that stay.
        model: id of the model that takes the place of the job's.
        work: what it computes.
    """

    stored: Storage | None = None
    shape: Narrowed | Factorized | None = None
    depth: float = 1.0
    model: str | None = None
    work: Work = Work()
