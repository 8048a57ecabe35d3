"""Models that were exported for a fixed batch answer any number of samples, or say that they do not."""

import pytest
import torch
from torch import nn

from worker.engine import formats
from worker.engine.formats.batch import symbolic_batch
from worker.engine.formats.lift import network_of
from worker.engine.formats.pt2_writer import write_pt2


class Tokens(nn.Module):
    """Patches, a class token, positions, attention that puts the sequence first inside."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 17, 8))
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, image):
        patches = self.patches(image).reshape(image.shape[0], 8, 16).permute(0, 2, 1)
        tokens = torch.cat([self.token.expand(image.shape[0], -1, -1), patches], 1) + self.positions
        return self.head(self.encoder(tokens)[:, 0])


class Recurrent(nn.Module):
    """States that are made for the batch, and time in front."""

    def __init__(self):
        super().__init__()
        self.first = nn.LSTM(6, 7, bidirectional=True)
        self.second = nn.GRU(14, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, series):
        first, _ = self.first(series.transpose(0, 1))
        second, _ = self.second(first.transpose(0, 1), torch.zeros(1, series.shape[0], 5))
        return self.head(second.reshape(-1, 5)).view(series.shape[0], -1, 3)


class Shuffled(nn.Module):
    """Channels in groups, two results."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, groups=2)
        self.head = nn.Linear(8 * 36, 4)

    def forward(self, image):
        image = self.conv(image)
        batch, channels, height, width = image.shape
        image = (
            image.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)
        )
        return {"scores": self.head(image.flatten(1)), "mean": image.mean((2, 3))}


class Words(nn.Module):
    """Two inputs: numbers of words, and which of them count."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 6)

    def forward(self, words, kept):
        values = self.table(words) + self.table(torch.arange(words.shape[1])).unsqueeze(0)
        return values.masked_fill(~kept.unsqueeze(-1), 0).sum(1)


class AcrossSamples(nn.Module):
    """What it says of one sample depends on the others."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(5, 4)

    def forward(self, x):
        return self.head(x - x.mean(0))


class Squeezed(nn.Module):
    """Throws the batch away."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(5, 4)

    def forward(self, x):
        return self.head(x.squeeze()).unsqueeze(0)


def image(batch):
    return (torch.randn(batch, 3, 16, 16),)


CASES = {
    "tokens": (Tokens, image),
    "recurrent": (Recurrent, lambda batch: (torch.randn(batch, 9, 6),)),
    "shuffled": (Shuffled, lambda batch: (torch.randn(batch, 4, 8, 8),)),
    "words": (Words, lambda batch: (torch.randint(0, 10, (batch, 7)), torch.rand(batch, 7) > 0.3)),
}


def build(cls):
    torch.manual_seed(0)
    return cls().eval()


def values(result):
    return list(result.values()) if isinstance(result, dict) else [result]


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("name", CASES)
def test_becomes_symbolic(name, size):
    cls, inputs = CASES[name]
    module = build(cls)
    network = symbolic_batch(network_of(module, inputs(size), dynamic_batch=False))
    assert network.batched and all(spec.batched for spec in network.outputs)
    assert network.notes == [f"The model was exported for a batch of {size}; it takes any number of samples now."]
    for batch in (1, 2, 5):
        given = inputs(batch)
        for found, wanted in zip(network.module(*given), values(module(*given)), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_the_result_exports_with_a_dynamic_batch(name, tmp_path):
    cls, inputs = CASES[name]
    module = build(cls)
    write_pt2(network_of(module, inputs(1), dynamic_batch=False), tmp_path / "fixed.pt2")
    network = formats.read(tmp_path / "fixed.pt2")
    assert network.batched
    write_pt2(network, tmp_path / "again.pt2")
    again = formats.read(tmp_path / "again.pt2")
    assert again.batched
    given = inputs(3)
    for found, wanted in zip(again.module(*given), values(module(*given)), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.filterwarnings("ignore")
def test_onnx_with_the_batch_written_into_constants(size, dynamo, tmp_path):
    module, path = build(Tokens), tmp_path / "fixed.onnx"
    torch.onnx.export(module, image(size), str(path), dynamo=dynamo, verbose=False, external_data=False)
    network = formats.read(path)
    assert network.batched
    given = image(3)
    torch.testing.assert_close(network.module(*given)[0], module(*given), rtol=1e-4, atol=1e-5)


class Mixing(nn.Module):
    """Mixes samples by one of many ways, most of which random inputs do not show."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, x):
        return self.how(x)


MIXERS = {
    "sum with a floor": lambda x: x + torch.relu(x.sum(0) - 5e6),
    "a rare maximum": lambda x: torch.where(x.amax(0, keepdim=True) > 1e6, 0, x),
    "a vanishing weight": lambda x: torch.sigmoid(x.mean(0) - 2e5) * x,
    "never a number": lambda x: torch.log(x - 5e6) + x.sum(0),
    "softmax": lambda x: x.softmax(0),
    "cumsum": lambda x: x.cumsum(0),
    "sorted": lambda x: x.sort(0).values,
    "flipped": lambda x: x.flip(0),
    "rolled": lambda x: x.roll(1, 0),
    "products of samples": lambda x: (x @ x.t()) @ x,
    "time": lambda x: x.transpose(0, 1).cumsum(1).transpose(0, 1),
    "pooled": lambda x: torch.nn.functional.max_pool1d(x.t().unsqueeze(0), 3, 1, 1)[0].t(),
}


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("size", [1, 4])
def test_whatever_mixes_samples_stays_as_it_is(name, size):
    network = network_of(Mixing(MIXERS[name]), (torch.randn(size, 5),), dynamic_batch=False)
    assert not symbolic_batch(network).batched


def test_a_recurrent_layer_along_the_batch_stays_as_it_is():
    class Along(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.LSTM(5, 3)

        def forward(self, x):
            return self.layer(x.unsqueeze(1))[0][:, 0]

    network = network_of(Along().eval(), (torch.randn(4, 5),), dynamic_batch=False)
    assert not symbolic_batch(network).batched


def test_what_is_too_large_to_compare_is_not_run():
    network = network_of(Mixing(lambda x: x[:, :1] * 2), (torch.empty(1, 1 << 28),), dynamic_batch=False)
    assert not symbolic_batch(network).batched


@pytest.mark.parametrize("cls", [AcrossSamples, Squeezed])
@pytest.mark.parametrize("size", [1, 4])
def test_stays_as_it_is(cls, size):
    network = network_of(build(cls), (torch.randn(size, 5),), dynamic_batch=False)
    same = symbolic_batch(network)
    assert same.inputs == network.inputs and same.module is network.module
    assert len(same.notes) == 1 and f"a batch of {size}, which could not be made dynamic" in same.notes[0]


def test_a_symbolic_batch_stays():
    network = network_of(build(Shuffled), (torch.randn(2, 4, 8, 8),))
    assert symbolic_batch(network) is network
