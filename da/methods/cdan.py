"""CDAN: conditional domain-adversarial networks (Long et al. 2018, NeurIPS, arXiv 1705.10667)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from da.errors import UserError
from da.methods.dann import DANN
from da.ops.entropy import certainty_weights, sample_entropies
from da.ops.gradient_reversal import gradient_reversal
from da.types import Activations


def multilinear_map(features: Tensor, predictions: Tensor) -> Tensor:
    """T(f, g) = f ⊗ g, ``(B, F · K)``: the features once for each class, times its probability.

    Args:
        features: ``(B, F)`` float, f.
        predictions: ``(B, K)`` float, g.
    """
    return (predictions.unsqueeze(2) * features.unsqueeze(1)).flatten(1)


class RandomizedMap(nn.Module):
    """T(f, g) = 1/√d · (f R_f) ⊙ (g R_g), whose inner products are those of f ⊗ g on average.

    The matrices are of independent standard normal numbers, drawn once, never trained and saved
    with the module (Long et al. 2018, randomised multilinear map; their code draws them from the
    same distribution, and does not save them).

    Args:
        features: F.
        classes: K.
        dimension: d.
    """

    def __init__(self, features: int, classes: int, dimension: int):
        super().__init__()
        self.of_features: Tensor
        self.of_predictions: Tensor
        self.register_buffer("of_features", torch.randn(features, dimension))
        self.register_buffer("of_predictions", torch.randn(classes, dimension))

    def forward(self, features: Tensor, predictions: Tensor) -> Tensor:
        """Features ``(B, F)`` and predictions ``(B, K)`` to ``(B, d)``."""
        product = (features @ self.of_features) * (predictions @ self.of_predictions)
        return product / math.sqrt(self.of_features.shape[1])


class CDAN(DANN):
    """DANN whose critic sees the features together with the predicted classes.

    It sees f ⊗ g of the features f and g = softmax(logits), where g is detached, as in the authors'
    code and the Transfer-Learning-Library. Everything else is DANN's, as in that library; the
    authors' critic has dropout in place of batch norm, and their code forwards one domain at a
    time (``forward_mode: separate``).

    With ``entropy_conditioning`` this is CDAN+E: samples weigh w = 1 + e^-H(g) in the loss of
    their domain, normalised to mean 1 within it. The entropy takes the gradient of the domain loss
    reversed, as the features do, which makes predictions surer: the paper's objective and its
    authors' code. The Transfer-Learning-Library detaches the weights and normalises them over both
    domains together.

    Args:
        entropy_conditioning: weight sure predictions more: CDAN+E.
        randomized_dim: size of a random map that the critic sees in place of f ⊗ g, which has
            features · classes numbers. The paper takes it where those are more than 4096; the
            authors' code and the Transfer-Learning-Library, where asked to, with 1024.
    """

    def __init__(
        self,
        num_classes: int,
        entropy_conditioning: bool = False,
        randomized_dim: int | None = None,
        **kwargs: Any,
    ):
        if randomized_dim is not None and randomized_dim < 1:
            raise UserError(
                f"randomized_dim: expected a whole number from 1 or null, got {randomized_dim}"
            )
        super().__init__(num_classes, **kwargs)

    def build(self) -> None:
        """Builds the random map, where there is one, and the critic."""
        features, h = self.num_features, self.hparams
        if h["randomized_dim"] is not None:
            # Its seed knows no normaliser: all of a grid have one map.
            self.random_map = self.part(
                "random_map",
                lambda: RandomizedMap(features, h["num_classes"], h["randomized_dim"]),
            )
        super().build()

    @property
    def critic_inputs(self) -> int:
        """See :attr:`DANN.critic_inputs`."""
        size: int | None = self.hparams["randomized_dim"]
        return self.num_features * self.hparams["num_classes"] if size is None else size

    def critic_input(self, activations: Activations) -> Tensor:
        """See :meth:`DANN.critic_input`."""
        predictions = activations.logits.softmax(dim=1).detach()
        randomized = self.hparams["randomized_dim"] is not None
        mapping = self.random_map if randomized else multilinear_map
        product: Tensor = mapping(activations.features, predictions)
        return product

    def sample_weights(self, activations: Activations, strength: float) -> Tensor | None:
        """See :meth:`DANN.sample_weights`."""
        if not self.hparams["entropy_conditioning"]:
            return None
        return certainty_weights(gradient_reversal(sample_entropies(activations.logits), strength))


class CDANE(CDAN):
    """CDAN+E: :class:`CDAN` whose samples weigh by how sure their predictions are.

    Args:
        entropy_conditioning: always on; without it, this is CDAN.
    """

    def __init__(self, num_classes: int, entropy_conditioning: bool = True, **kwargs: Any):
        if not entropy_conditioning:
            raise UserError(
                "entropy_conditioning: expected true, got false; without it CDANE is CDAN, take "
                "that"
            )
        super().__init__(num_classes, entropy_conditioning=entropy_conditioning, **kwargs)
