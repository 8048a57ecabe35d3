"""Modules become files that answer as they do, whatever the number of samples, and are left as they were."""

import copy
import sys

import modelpress
import pytest
import torch
from modelpress import ExportError, export
from torch import nn

from worker.engine import formats


class Head(nn.Module):
    """A layer and what is done with its answer."""

    def __init__(self, then=torch.relu):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.then = then

    def forward(self, x):
        return self.then(self.layer(x))


class Several(nn.Module):
    """Inputs of every kind."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, image, table, scale, times=2, *, mask=None):
        scores = self.layer(image) * scale * times + table.sum()
        return {"scores": scores if mask is None else scores * mask, "image": image}


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        self.count += 1
        return x * 2


class Pooled(nn.Module):
    """Takes one dictionary."""

    def forward(self, parts):
        return parts["left"].mean(1) + parts["right"][0].amax(1)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.pt2"


@pytest.fixture
def x():
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


def answers(path, *inputs):
    """What the service's own reader makes of the file."""
    return formats.read(path).module(*inputs)


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_the_file_answers_as_the_module_for_any_number_of_samples(path, x, samples):
    module = Head()
    report = export(module, x[:samples], path)
    assert (report.dynamic_batch, report.accepted, report.notes, report.file) == (True, True, (), "model.pt2")
    assert report == modelpress.check(path)
    for count in (1, 3, 5):
        (found,) = answers(path, x[:count])
        torch.testing.assert_close(found, module(x[:count]))


def test_a_slice_does_not_drag_its_memory_along(path):
    module, pool = Head(), torch.randn(1 << 20, 4)
    module.layer.weight = nn.Parameter(pool[:3])
    module.layer.bias = nn.Parameter(torch.randn(1 << 20)[:3])
    export(module, (pool[:64],), path)
    assert path.stat().st_size < 20_000
    torch.testing.assert_close(answers(path, pool[:7])[0], module(pool[:7]))
    assert module.layer.weight.untyped_storage().nbytes() == 1 << 24


def test_tied_weights_that_are_slices_stay_one(path, x):
    module = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    module[0].weight = module[1].weight = nn.Parameter(torch.randn(1 << 16, 4)[:4])
    assert export(module, x, path).parameters == 16
    torch.testing.assert_close(answers(path, x)[0], module(x))


def test_every_part_keeps_its_mode(path):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())
    module[1].eval()
    before = copy.deepcopy(module.state_dict())
    export(module, torch.randn(2, 3, 8, 8), path)
    assert [part.training for part in module.modules()] == [True, True, False, True]
    torch.testing.assert_close(module.state_dict(), before)
    image = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(answers(path, image)[0], module.eval()(image))


def test_every_part_keeps_its_mode_where_the_export_fails(path, x):
    module = nn.Sequential(Head(lambda y: y if y.sum() > 0 else -y), nn.Dropout()).train()
    with pytest.raises(ExportError):
        export(module, x, path)
    assert all(part.training for part in module.modules())
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("mask", [None, torch.ones(5, 3)])
def test_several_inputs_keep_their_names_and_what_is_fixed_is_said(path, x, mask):
    keywords = {"times": 3} if mask is None else {"mask": mask}
    report = export(Several(), (x, torch.ones(10, 3), torch.tensor(2.0)), path, kwargs=keywords)
    names = ["image", "table", "scale"] if mask is None else ["image", "table", "scale", "mask"]
    assert [spec.name for spec in report.inputs] == names
    assert [spec.name for spec in report.outputs] == ["scores", "image"]
    assert [spec.shape for spec in report.inputs][:3] == [("batch", 4), (10, 3), ()]
    said = "\n".join(report.notes)
    assert "'table' keeps its first dimension of 10" in said
    assert "'scale' is a single number (0-d)" in said
    assert ("'times' is 3, no tensor" in said) == (mask is None)


def test_a_dictionary_holds_keyword_inputs(path, x):
    report = export(Several(), {"scale": torch.tensor(1.0), "image": x, "table": torch.ones(10, 3)}, path)
    assert {spec.name for spec in report.inputs} == {"image", "table", "scale"}


def test_a_dictionary_in_a_tuple_is_an_input(path):
    module, parts = Pooled(), {"left": torch.randn(4, 6), "right": [torch.randn(4, 2)]}
    report = export(module, (parts,), path)
    assert [spec.shape for spec in report.inputs] == [("batch", 6), ("batch", 2)]
    torch.testing.assert_close(answers(path, parts["left"], parts["right"][0])[0], module(parts))


@pytest.mark.parametrize(
    ("then", "size"),
    [
        (lambda y: y.view(5, -1), 5),
        (lambda y: y if y.shape[0] < 4 else y * 2, 1),
    ],
)
def test_a_batch_that_cannot_be_free_is_fixed_and_the_notes_say_why(path, x, then, size):
    module = Head(then)
    report = export(module, x, path)
    assert report.dynamic_batch is False
    assert report.inputs[0].shape == (size, 4)
    (note,) = report.notes
    assert note.startswith(f"The batch is fixed at {size}, since it cannot be dynamic: ")
    assert "flatten(1) work with any number" in note
    torch.testing.assert_close(torch.export.load(path).module()(x[:size]), module(x[:size]))


def test_shapes_stay_where_that_is_wanted(path, x):
    report = export(Head(), x, path, dynamic_batch=False)
    assert report.inputs[0].shape == (5, 4)
    assert report.notes[0].startswith("The batch is fixed at 5: ")


@pytest.mark.parametrize(
    ("module", "inputs", "said"),
    [
        (Head(lambda y: y if y.sum() > 0 else -y), torch.randn(2, 4), "torch.where"),
        (Head(lambda y: nn.functional.dropout(y, 0.5, True)), torch.ones(2, 4), "answers otherwise each time"),
        (Head(lambda y: y.detach().numpy()), torch.ones(2, 4), "answers with ndarray"),
        (Head(), torch.ones(2, 7), "does not run on example_inputs: mat1 and mat2 shapes"),
        (Head(), (), "holds no tensor, nothing"),
        (Head(), ["image"], "holds no tensor, only str"),
        (Head(), torch.ones(0, 4), "holds no sample"),
        (Counting(), torch.ones(2, 4), "stateful_model"),
        (Head().state_dict(), torch.ones(2, 4), "load_state_dict"),
        (len, torch.ones(2, 4), "not an nn.Module but builtin_function_or_method"),
    ],
)
def test_errors_say_what_would_work(path, module, inputs, said):
    with pytest.raises(ExportError) as raised:
        export(module, inputs, path)
    assert said in str(raised.value)
    assert list(path.parent.iterdir()) == []


def test_the_name_says_what_the_file_is(tmp_path, x):
    with pytest.raises(ExportError, match=r"'model\.pt2' would do"):
        export(Head(), x, tmp_path / "model.pth")


def test_a_file_that_is_there_stays_where_the_export_fails(path, x):
    path.write_bytes(b"older")
    with pytest.raises(ExportError):
        export(Counting(), x, path)
    assert path.read_bytes() == b"older"


@pytest.mark.filterwarnings("ignore:`torch.jit")  # of what torch.compile imports
@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_what_wraps_a_module_is_taken_off(path, x, wrap):
    module = Head()
    report = export(wrap(module), x, path)
    assert report.inputs[0].name == "x"
    torch.testing.assert_close(answers(path, x)[0], module(x))


def test_inputs_that_need_gradients_are_none_of_the_file(path, x):
    assert export(Head(), x.requires_grad_(), path).accepted


def test_without_torch_it_says_what_to_install(monkeypatch, path, x):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ExportError, match="pip install torch"):
        export(Head, x, path)
