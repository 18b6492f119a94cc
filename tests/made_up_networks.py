"""Networks that were never trained: features, logits and labels drawn at random."""

from types import SimpleNamespace

import numpy as np
import torch

from da.analysis.layer_distances import LayerDistance
from da.analysis.trained_networks import ROLES, DomainSample, Subject, TrainedNetwork


def names(count, long=False):
    return tuple(f"{'ring_binder_of_' if long else ''}{chr(97 + i % 26)}{i}" for i in range(count))


def subject(
    classes=4,
    images=40,
    most=1000,
    labelled=True,
    long=False,
    shared="DANN, seed 0",
    brightest=255,
):
    """Grey images of 8 x 8; the labels of either domain go round the classes."""
    labels = np.arange(images) % classes
    pixels = torch.linspace(0, brightest, images).byte().view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    sets = {}
    for role in ROLES:
        known = labels if labelled or role == "source" else np.full(images, -1)

        class Set:
            classes = ()
            labels = known

            def __len__(self):
                return images

            def images(self, indices):
                return pixels[torch.from_numpy(indices)]

            def names(self, indices):
                return [f"{i}.png" for i in indices]

            def fingerprint(self):
                return str((pixels.flatten().tolist(), self.labels.tolist()))

        sets[role] = Set()
    data = SimpleNamespace(
        source="clean",
        target="noisy",
        task="clean->noisy",
        classes=names(classes, long),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        transform=SimpleNamespace(evaluate=lambda x: x / 127.5 - 1),
        set_of=lambda role, split: sets[role],
        domain_of=lambda role: {"source": "clean", "target": "noisy"}[role],
    )
    return Subject(data, "test", most, 0, shared)


def network(shown, name="bn", seed=0, sure=2.0, gap=1.0, width=6, layers=5):
    """Logits that are mostly right; the features of the target are moved by ``gap``."""
    random = np.random.default_rng(seed)
    classes = len(shown.data.classes)
    centres = random.normal(size=(classes, width))
    samples = {}
    for role in ROLES:
        found = shown.data.set_of(role, "test")
        count = len(found)
        true = np.arange(count) % classes
        features = centres[true] + 0.3 * random.normal(size=(count, width))
        features += gap * (role == "target")
        logits = sure * (np.eye(classes)[true] + 0.6 * random.normal(size=(count, classes)))
        samples[role] = DomainSample(
            features.astype(np.float32),
            logits.astype(np.float32),
            np.asarray(found.labels),
            np.arange(count),
            found.names(np.arange(count)),
            shown.picks(role),
            shown.data.domain_of(role),
        )
    distances = [
        LayerDistance(f"backbone.blocks.{i}.conv", 4, random.random() / (i + 1), 0.01)
        for i in range(layers)
    ]
    facts = {
        **{"norm": name, "method": "DANN", "backbone": "digits_resnet", "seed": 0, "lr": 0.1},
        **{"batch_size": 32, "checkpoint": f"{name}.ckpt"},
    }
    return TrainedNetwork(facts, samples["source"], samples["target"], distances, name)
