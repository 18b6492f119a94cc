"""What tests of commands on trained networks share: two small domains, and networks of them."""

import numpy as np
import pytest
from PIL import Image
from short_runs import SHORT_FIT

import run


@pytest.fixture(scope="session")
def two_domains(tmp_path_factory):
    """Two domains of 2 classes, 20 images each in files sorted by class; the target is darker."""
    root = tmp_path_factory.mktemp("domains")
    random = np.random.default_rng(0)
    for domain, scale in (("bright", 1.0), ("dark", 0.4)):
        for label, name in enumerate(("red", "green")):
            (root / domain / name).mkdir(parents=True)
            for i in range(10):
                image = random.normal(90, 25, (32, 32, 3))
                image[..., label] += 60
                pixels = np.clip(scale * image, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / domain / name / f"{i:02d}.png")
    return root


@pytest.fixture(scope="session")
def pair(two_domains):
    """Options that name the two domains, as source and target."""
    return [
        *("--data", "Folder", "--data.root", str(two_domains), "--data.source", "bright"),
        *("--data.target", "dark", "--data.image_size", "32", "--data.resize", "32"),
        *("--data.batch_size", "4", "--data.eval_batch_size", "8"),
    ]


@pytest.fixture(scope="session")
def trained(tmp_path_factory, pair):
    """Runs of two steps of DANN with batch norm and with WeightAlign, as a folder of runs."""
    out = tmp_path_factory.mktemp("trained")
    for norm in ("bn", "wa"):
        words = ["--model", "DANN", "--model.norm", norm, "--out", str(out / norm)]
        assert run.main(["fit", *words, *pair, *SHORT_FIT]) == 0
    return out
