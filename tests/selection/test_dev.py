"""DEV against the formula by hand, known densities, and a shift whose risk is known."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import norm

from da.errors import UserError
from da.selection.base import Evidence, find_score, refuse_unfit_scores
from da.selection.dev import DEV, density_ratios, dev_risk
from da.types import Predictions
from datasets.folder import Folder


def test_the_risk_is_that_of_the_papers_algorithm():
    random = np.random.default_rng(0)
    w, loss = random.gamma(2, 0.5, 200), random.exponential(1.0, 200)
    n = len(w)
    weighted = [a * b for a, b in zip(w, loss, strict=True)]
    mean_l, mean_w = sum(weighted) / n, sum(w) / n
    cov = sum((a - mean_l) * (b - mean_w) for a, b in zip(weighted, w, strict=True)) / (n - 1)
    var = sum((b - mean_w) ** 2 for b in w) / (n - 1)
    eta = -cov / var
    assert dev_risk(w, loss) == pytest.approx(mean_l + eta * mean_w - eta)


def test_equal_weights_give_the_mean_loss():
    assert dev_risk(np.ones(5), np.arange(5.0)) == 2.0
    assert dev_risk(np.ones(1), np.array([3.0])) == 3.0


def test_density_ratios_of_two_gaussians_are_those_of_their_densities():
    random = np.random.default_rng(1)
    source, target = random.normal(0, 1, (4000, 1)), random.normal(1, 1, (1000, 1))
    at = np.linspace(-1, 2, 7)[:, None]
    expected = norm.pdf(at[:, 0], 1) / norm.pdf(at[:, 0], 0)
    assert density_ratios(source, target, at) == pytest.approx(expected, rel=0.15)


def evidence_of(slope, seed=0):
    """A one-dimensional problem: y = [x > 0]; a model with p(1 | x) = σ(slope (x - 1))."""
    random = np.random.default_rng(seed)

    def predictions(mean, n, labelled=True):
        x = random.normal(mean, 1, n)
        logits = np.stack([np.zeros(n), slope * (x - 1)], axis=1)
        labels = torch.from_numpy((x > 0).astype(np.int64)) if labelled else None
        features = torch.from_numpy(x[:, None]).float()
        return Predictions(torch.from_numpy(logits).float(), labels, features)

    source = {"train": predictions(0, 3000), "validation": predictions(0, 3000)}
    return Evidence(predictions(1.5, 3000, labelled=False), source, seed), predictions


def test_it_is_nearer_to_the_targets_risk_than_the_sources_own():
    evidence, predictions = evidence_of(3.0)

    def risk(p):
        return torch.nn.functional.cross_entropy(p.logits, p.labels).item()

    target, source = risk(predictions(1.5, 20000)), risk(evidence.source["validation"])
    estimate = -DEV()(evidence)
    assert abs(target - source) > 0.1
    assert abs(estimate - target) < 0.3 * abs(source - target)


def test_it_is_the_same_again_and_sees_no_label_of_the_target():
    evidence, _ = evidence_of(1.0)
    assert DEV()(evidence) == DEV()(evidence)
    assert evidence.target.labels is None


@pytest.mark.parametrize("few", ["source", "target"])
def test_fewer_images_of_a_domain_than_folds_give_no_number_and_no_warning(few, recwarn):
    evidence, _ = evidence_of(1.0)

    def first(p, n):
        return Predictions(*(x if x is None else x[:n] for x in p))

    train = first(evidence.source["train"], 4 if few == "source" else 20)
    source = {**evidence.source, "train": train}
    target = first(evidence.target, 4 if few == "target" else 20)
    assert np.isnan(DEV()(Evidence(target, source)))
    enough = Evidence(first(evidence.target, 5), {**source, "train": first(train, 5)})
    if few == "target":
        assert np.isfinite(DEV()(enough))
    assert not recwarn.list


def test_it_is_found_by_name_and_says_what_it_needs():
    assert type(find_score("DEV")) is DEV
    assert DEV.needs == ("train", "validation")


def test_an_evaluation_forwards_what_it_needs(tmp_path):
    from da.engine.spec import RunSpec
    from da.engine.training import train

    spec = RunSpec(
        data="Digits", source="rendered", target="optical", method="SourceOnly", norm="wa",
        model_args={"bottleneck": 16}, lr=0.01, batch_size=8, epochs=1, steps_per_epoch=2, seed=0,
        scores=("DEV", "InformationMaximisation"),
    )  # fmt: skip
    result = train(spec, tmp_path)
    streams = result.evaluations[-1].forms[""]
    assert np.isfinite(streams["target/validation"].label_free["DEV"])
    assert streams["source/test"].label_free == {}


def test_a_training_on_all_source_images_refuses_it(tmp_path):
    random = np.random.default_rng(0)
    for file in (f"{d}/{k}/{i}.png" for d in "st" for k in "ab" for i in range(4)):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / file)
    options = {"root": str(tmp_path), "image_size": 32, "cache": False}
    data = Folder(source="s", target="t", batch_size=2, **options)
    with pytest.raises(UserError, match="DEV looks at source images that are not trained on"):
        refuse_unfit_scores(["NegativeEntropy", "DEV"], data)
    held_out = Folder(source="s", target="t", batch_size=2, validation=0.5, **options)
    refuse_unfit_scores(["NegativeEntropy", "DEV"], held_out)
