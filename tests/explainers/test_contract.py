"""The tests that every method must pass, the registry, and the interface."""

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bla.base.errors import BlaError
from bla.base.specs import Schedule
from bla.explainers import posthoc
from bla.explainers.contract import check_explainer, check_learned
from bla.explainers.controls.edges import Edges
from bla.explainers.interface import (
    Explainer,
    LearnedExplainer,
    StructuredExplainer,
    TrainingData,
    add_noise,
    cell_maps,
)
from bla.explainers.posthoc.cam import CAM
from bla.explainers.registry import explainer_class, explainer_files, explainer_names
from bla.explainers.structured.sag import ShownCells

SIDE, CHANNELS = 64, 96
MODULES = ["l2x_f", "bla", "bla_t"]
METHODS = [*(name for name in explainer_names() if name != "attention"), *(f"attention {name}" for name in MODULES)]
LEARNED = {"attention", "explainer_network", "l_cam_fm", "l_cam_img", "xnn"}
PASSES = {"cam": 1, "grad_cam": 1, "grad_cam_pp": 1, "score_cam": CHANNELS + 1, "lime": 40, "rise": 20, "sag": 2}
PASSES |= dict.fromkeys(LEARNED, 1) | {"explainer_network": 0}
OPTIMISED = {"i_gos": 2 * 3, "i_gos_pp": 4 * 2 * 3}
PASSES |= OPTIMISED
LOOKS = {"lime", "random", "sag", *OPTIMISED}
"""Methods that make one uncounted forward pass to get the size of the feature map."""
BACKWARDS = {"grad_cam": 1, "grad_cam_pp": 1, "sag": 1} | OPTIMISED
CONTROLS = {"centre", "constant", "edges", "random"}
WITHOUT_THE_CLASSIFIER = {*CONTROLS, "explainer_network"}


@pytest.mark.parametrize("backbone", ["plain", "folded"])
@pytest.mark.parametrize("label", METHODS)
def test_every_method_passes_the_battery(label, backbone, method, classifier, folded, images, targets):
    check_explainer(method(label, (classifier if backbone == "plain" else folded).run(0)), images, targets)


class Faulty(CAM):
    """CAM, with a fault."""

    def __init__(self, classifier, fault):
        super().__init__(classifier)
        self.fault, self.calls = fault, 0

    def explain(self, images, targets, seeds):
        self.calls += 1
        return self.fault(self, super().explain(images, targets, seeds), images, targets, seeds)


def faulty(message):
    return lambda fault: pytest.param(fault, message, id=fault.__name__)


@faulty("when images come one by one")
def depends_on_the_batch(self, maps, *_):
    return maps - maps.mean(dim=0)


@faulty("when images come one by one")
def depends_on_the_place_in_the_batch(self, maps, *_):
    return maps * (1 + torch.arange(len(maps)))[:, None, None]


@faulty("in another order")
def depends_on_the_order(self, maps, images, targets, seeds):
    return maps * (1.01 if seeds[0] > seeds[-1] else 1)


@faulty("when asked again")
def depends_on_what_was_asked_before(self, maps, images, targets, seeds):
    return maps * (1.01 if self.calls > 5 else 1)


@faulty("maps differ by")
def draws_numbers_without_a_seed(self, maps, *_):
    generator = torch.Generator()
    generator.seed()
    return maps + torch.rand(maps.shape, generator=generator)


@faulty("the random state is not as it was")
def draws_numbers_from_the_global_state(self, maps, *_):
    return maps + 0 * torch.rand(1)


@faulty("the random state is not as it was")
def seeds_the_global_state(self, maps, *_):
    torch.manual_seed(99)
    return maps


@faulty("maps are not finite")
def gives_nan(self, maps, *_):
    return maps.masked_fill(maps == maps.max(), torch.nan)


@faulty("maps are not finite")
def gives_infinity(self, maps, *_):
    return maps.masked_fill(maps == maps.max(), torch.inf)


@faulty(r"maps have shape \[3, 16\], not \[B, h, w\]")
def gives_flat_maps(self, maps, *_):
    return maps.flatten(1)


@faulty("2 maps for 3 images")
def forgets_an_image(self, maps, *_):
    return maps[:2]


@faulty(r"maps are torch\.int32")
def gives_whole_numbers(self, maps, *_):
    return (100 * maps).int()


@faulty("the model is not as it was")
def leaves_training_mode(self, maps, *_):
    self.classifier.train()
    return maps


@faulty("the model is not as it was")
def leaves_training_mode_in_one_layer(self, maps, *_):
    self.classifier.extractor.model.layer3[0].bn1.train()
    return maps


@faulty("the model is not as it was")
def leaves_a_hook(self, maps, *_):
    self.classifier.extractor.model.layer4.register_forward_hook(lambda *_: None)
    return maps


@faulty("the model is not as it was")
def leaves_a_hook_before_a_layer(self, maps, *_):
    self.classifier.extractor.model.layer4.register_forward_pre_hook(lambda *_: None)
    return maps


@faulty("the model is not as it was")
def leaves_a_hook_on_gradients(self, maps, *_):
    self.classifier.extractor.model.layer4.register_full_backward_hook(lambda *_: None)
    return maps


@faulty("the model is not as it was")
def asks_for_gradients(self, maps, *_):
    self.classifier.extractor.requires_grad_(True)
    return maps


@faulty("the model is not as it was")
def leaves_gradients(self, maps, *_):
    self.classifier.tail.weight.grad = torch.zeros_like(self.classifier.tail.weight)
    return maps


@faulty("the model is not as it was")
def changes_a_weight(self, maps, *_):
    self.classifier.extractor.model.conv1[0].weight[0, 0, 0, 0] += 0.1
    return maps


@faulty("the model is not as it was")
def changes_running_statistics(self, maps, *_):
    self.classifier.extractor.model.bn1.running_mean[0] += 0.1
    return maps


@faulty("the images is not as it was")
def paints_on_the_images(self, maps, images, *_):
    images[0, 0, 0] = 255 - images[0, 0, 0]
    return maps


@faulty("the targets is not as it was")
def changes_the_targets(self, maps, images, targets, seeds):
    targets[0] = 1
    return maps


@faulty("with other seeds, although it is not seeded")
def depends_on_the_seeds(self, maps, images, targets, seeds):
    return maps * seeds[:, None, None]


@faulty("maps of another class are the same")
def ignores_the_class(self, maps, images, *_):
    return self.classifier.features(images).mean(dim=1).detach()


@faulty("the maps carry a graph")
def gives_a_graph(self, maps, *_):
    return maps.requires_grad_()


@pytest.mark.parametrize(
    ("fault", "message"), [value for value in list(vars().values()) if isinstance(value, type(pytest.param()))]
)
def test_the_battery_finds_faults(fault, message, classifier, images, targets):
    model = copy.deepcopy(classifier.run(0))
    with pytest.raises(AssertionError, match=message), torch.random.fork_rng(devices=[]):
        check_explainer(Faulty(model, fault), images.clone(), targets.clone())


def test_the_battery_passes_a_correct_method_and_rejects_one_wrongly_declared_class_independent(
    classifier, images, targets
):
    cam_itself = Faulty(classifier.run(0), lambda self, maps, *_: maps)
    check_explainer(cam_itself, images, targets)
    cam_itself.class_specific = False
    with pytest.raises(AssertionError, match="for another class"):
        check_explainer(cam_itself, images, targets)


def test_the_battery_rejects_a_method_that_wrongly_says_that_it_ignores_the_image(classifier, images, targets):
    class Wrong(Edges):
        ignores_image = True

    with pytest.raises(AssertionError, match="for other images, although it ignores the image"):
        check_explainer(Wrong(classifier.run(0)), images, targets)


def test_the_battery_needs_three_images(classifier, images, targets):
    with pytest.raises(AssertionError, match="three images"):
        check_explainer(CAM(classifier.run(0)), images[:2], targets[:2])


def test_a_method_needs_the_classifier_of_one_run(classifier):
    for name in explainer_names():
        if name not in ("lime", *LEARNED):
            with pytest.raises(AssertionError, match="one run"):
                explainer_class(name)(classifier)


def test_methods_are_found_by_name_and_an_unknown_name_lists_them():
    assert {*PASSES, *CONTROLS} <= set(explainer_names())
    for name in explainer_names():
        found = explainer_class(name)
        assert issubclass(found, Explainer)
        assert found.__module__ == f"bla.explainers.{explainer_files()[name].parent.name}.{name}"
        assert found.title
    with pytest.raises(BlaError, match="gradcam") as error:
        explainer_class("gradcam")
    assert all(name in str(error.value) for name in explainer_names())


def test_two_methods_with_the_same_name_are_refused(tmp_path, monkeypatch):
    for family in ("posthoc", "learned"):
        (tmp_path / family).mkdir()
        (tmp_path / family / "cam.py").touch()
    monkeypatch.setattr("bla.explainers.registry.__file__", str(tmp_path / "registry.py"))
    with pytest.raises(BlaError, match=r"cam\.py: .*cam\.py.*rename"):
        explainer_names()


@pytest.mark.parametrize("label", METHODS)
def test_a_method_makes_as_many_passes_as_its_card_says(label, method, classifier, images, targets, seeds, monkeypatch):
    name, run, seen = label.split()[0], classifier.run(0), []
    hook = run.extractor.model.bn1.register_forward_hook(lambda module, given, result: seen.append(len(result)))
    explainer = method(label, run)
    relative, evaluated = ShownCells.relative, []
    monkeypatch.setattr(
        ShownCells, "relative", lambda self, rows, sets: evaluated.extend(sets) or relative(self, rows, sets)
    )
    explainer.explain(images[:2], targets[:2], seeds[:2])
    hook.remove()
    passes = PASSES.get(name, 0)
    expected = 2 * passes
    if name == "score_cam":  # one pass for the features, and one for each channel that is not constant
        features = run.extractor.feature_map(images[:2])
        expected = 2 + int((features.amax(dim=(2, 3)) > features.amin(dim=(2, 3))).sum())
        assert expected < 2 * passes
    if name in OPTIMISED:  # the number of steps that a line search tries varies
        expected = run.forwards
        assert run.backwards < run.forwards <= run.backwards * (1 + 12)
    if name == "sag":  # the guide, the whole image, and a pass for each set
        expected += len(evaluated)
    assert run.forwards == expected
    assert sum(seen) == run.forwards + (name in LOOKS)
    assert run.backwards == 2 * BACKWARDS.get(name, 0)
    assert explainer.control == (name in CONTROLS)
    assert explainer.ignores_image == (name in CONTROLS - {"edges"})
    assert (passes == 0) == (name in WITHOUT_THE_CLASSIFIER)
    assert explainer.slow == (passes > 1)
    assert explainer.learned == (name in LEARNED)


@pytest.mark.parametrize("size", [1, 2, 16])
def test_cell_maps_are_means_over_cells_and_do_not_depend_on_the_batch(
    size, classifier, images, targets, seeds, monkeypatch
):
    run, batches = classifier.run(0), []

    class Seen(Edges):
        def explain(self, images, targets, seeds):
            batches.append(len(images))
            return super().explain(images, targets, seeds) + targets[:, None, None] + 10 * seeds[:, None, None]

    monkeypatch.setattr("bla.explainers.interface.batch_size_for", lambda device, pixels: size)
    found = cell_maps(Seen(run), images, targets, seeds, (2, 2))
    assert max(batches) == min(size, 3)
    assert found.dtype == torch.float64
    whole = Seen(run).explain(images, targets, seeds).double().numpy()
    cells = [[tile[:32, :32], tile[:32, 32:], tile[32:, :32], tile[32:, 32:]] for tile in whole]
    np.testing.assert_allclose(found, [[cell.mean() for cell in row] for row in cells], rtol=1e-9)


def test_noise_has_the_given_standard_deviation_and_depends_on_the_seed():
    grey = torch.full((3, SIDE, SIDE, 3), 128, dtype=torch.uint8)
    seeds = torch.tensor([4, 9, 4])
    noisy = add_noise(grey, 0.05, seeds)
    assert noisy.dtype == torch.uint8
    noise = noisy.double() - 128
    assert noise.std().item() == pytest.approx((12.75**2 + 1 / 12) ** 0.5, rel=0.03)
    assert abs(noise.mean()) < 5 * 12.75 / noise.numel() ** 0.5
    assert noisy[0].equal(noisy[2])
    assert not noisy[0].equal(noisy[1])
    assert add_noise(grey[:1], 0.05, seeds[1:2])[0].equal(noisy[1])
    assert add_noise(grey, 0, seeds).equal(grey)


def test_noise_stays_within_the_range_of_pixels():
    for value in (0, 255):
        noisy = add_noise(torch.full((1, 32, 32, 3), value, dtype=torch.uint8), 0.1, torch.tensor([0])).double()
        assert (noisy - value).abs().max() < 6 * 25.5
        assert (noisy == value).double().mean() == pytest.approx(0.5, abs=0.05)


GRID, RUNS = (4, 4), 2


class Fitted(LearnedExplainer):
    """A learned method with a fault."""

    title = "fitted"
    card = CAM.card

    def __init__(self, classifier, fault):
        super().__init__(classifier)
        self.fault = fault

    def fit(self, data, seeds, progress=lambda runs: None):
        weights = [torch.randn(CHANNELS, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return self.fault(self, {"weights": torch.stack(weights)}, seeds)

    def explain(self, images, targets, seeds):
        return torch.einsum("bchw,c->bhw", self.classifier.features(images), self.state["weights"][0])


def without_fault(self, state, seeds):
    return state


def forgets_the_runs(self, state, seeds):
    return {"weights": state["weights"][0]}


def learns_nan(self, state, seeds):
    return {"weights": state["weights"] / 0}


def keeps_a_graph(self, state, seeds):
    return {"weights": state["weights"].requires_grad_()}


def ignores_its_seeds(self, state, seeds):
    return {"weights": torch.ones_like(state["weights"])}


def draws_while_it_is_fitted(self, state, seeds):
    return {"weights": state["weights"] + torch.rand(())}


def counts_its_fits(self, state, seeds):
    self.fits = getattr(self, "fits", 0) + 1
    return {"weights": state["weights"] + self.fits}


def changes_the_classifier(self, state, seeds):
    self.classifier.tail.bias += 1
    return state


def learns_nothing(self, state, seeds):
    return {}


@pytest.fixture
def training(classifier, images):
    features = torch.zeros(1, 3, 16, CHANNELS).half()
    schedule = Schedule(batch_size=2, epochs=1, learning_rate=0.1, dropout=0, adam_epsilon=1e-7)
    return TrainingData(features, GRID, images.numpy(), torch.tensor([0, 1, 2]), schedule, torch.device("cpu"))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (forgets_the_runs, "weights has shape [96], without a leading dimension of 2 runs"),
        (learns_nan, "weights is not finite"),
        (keeps_a_graph, "weights carries a graph"),
        (ignores_its_seeds, "other seeds give the same state"),
        (draws_while_it_is_fitted, "the random state is not as it was before"),
        (counts_its_fits, "the same seeds give another state"),
        (changes_the_classifier, "the model is not as it was before"),
        (learns_nothing, "the state is empty"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_battery_finds_faults_of_learned_methods(fault, message, classifier, training):
    with pytest.raises(AssertionError) as error:
        check_learned(Fitted(copy.deepcopy(classifier), fault), training, [5, 6])
    assert message in str(error.value)


def test_a_correct_learned_method_passes_and_uses_the_state_of_each_run(classifier, training, images, targets, seeds):
    method = Fitted(classifier, without_fault)
    check_learned(method, training, [5, 6])
    method.run = lambda number: Fitted(classifier.run(number), without_fault).load(
        {name: value[number : number + 1] for name, value in method.state.items()}
    )
    maps = method.explain_runs(images, torch.stack([targets] * RUNS), seeds)
    with torch.no_grad():
        features = classifier.extractor.feature_map(images)
    expected = torch.einsum("bchw,rc->rbhw", features, method.state["weights"])
    torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-3)


class Sets(StructuredExplainer):
    """CAM with sets that have a fault."""

    title = "sets"
    card = CAM.card

    def __init__(self, classifier, sets):
        super().__init__(classifier)
        self.sets = sets

    def explain_with_sets(self, images, targets, seeds):
        return CAM(self.classifier).explain(images, targets, seeds), self.sets(images)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (lambda images: [[[0, 3]], [[1]]], "sets of 2 images for 3"),
        (lambda images: [[]] * len(images), "an image has no set"),
        (lambda images: [[[]]] * len(images), "a set is empty"),
        (lambda images: [[[3, 0]]] * len(images), "is not sorted, or has a cell twice"),
        (lambda images: [[[3, 3]]] * len(images), "is not sorted, or has a cell twice"),
        (lambda images: [[[15, 16]]] * len(images), "lies outside the 16 cells of the grid"),
        (lambda images: [[[len(images)]]] * len(images), "sets differ when images come one by one"),
    ],
)
def test_the_battery_finds_faults_of_sets(sets, message, classifier, images, targets):
    with pytest.raises(AssertionError) as error:
        check_explainer(Sets(classifier.run(0), sets), images, targets)
    assert message in str(error.value)


def test_correct_sets_pass(classifier, images, targets):
    check_explainer(Sets(classifier.run(0), lambda images: [[[0, 5], [15]]] * len(images)), images, targets)


@pytest.mark.parametrize("missing", ["title", "card"])
def test_a_method_without_title_or_card_is_refused_with_its_file(missing, tmp_path, monkeypatch):
    code = Path(explainer_files()["cam"]).read_text()
    (tmp_path / "posthoc").mkdir()
    (tmp_path / "posthoc" / "mine.py").write_text(code.replace(f"    {missing} = ", "    another = "))
    monkeypatch.setattr("bla.explainers.registry.__file__", str(tmp_path / "registry.py"))
    monkeypatch.setattr(posthoc, "__path__", [str(tmp_path / "posthoc")])
    monkeypatch.delitem(sys.modules, "bla.explainers.posthoc.mine", raising=False)
    with pytest.raises(BlaError, match=rf"mine\.py: CAM has no {missing}"):
        explainer_class("mine")
