import torch
from made_evidence import evidence
from sklearn.metrics import accuracy_score

from da.selection.source_accuracy import SourceAccuracy
from da.types import Predictions


def test_it_is_the_share_of_source_validation_images_that_are_right_whatever_the_target():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(50, 4, generator=generator), torch.arange(50) % 4
    source = {"validation": Predictions(logits, labels, torch.zeros(50, 1))}
    expected = accuracy_score(labels.numpy(), logits.numpy().argmax(axis=1))
    assert 0 < expected < 1
    for target in (torch.zeros(3, 4), torch.ones(1, 4)):
        assert SourceAccuracy()(evidence(target, source=source)) == expected
