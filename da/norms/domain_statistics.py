"""What normalisers share whose statistics of one domain depend on those of the other."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn

from da.errors import UserError
from da.norms.base import DOMAINS, ActivationNormaliser, DomainLayer, Normaliser
from da.norms.batch_norm import BatchNorm
from da.norms.surgery import Affine, affine_parameters
from da.ops.acceleration import without_autocast


class Moments(NamedTuple):
    """Of each channel of one domain, ``(C,)`` float each.

    Attributes:
        mean: of its values.
        variance: which it is normalised by: in training the biased one, as in batch norm.
        unbiased: the variance whose running average is kept.
    """

    mean: Tensor
    variance: Tensor
    unbiased: Tensor


class DomainStatistics(Affine, DomainLayer):
    """A layer with running statistics of each domain, one scale and one shift.

    In training, the statistics of a domain are those of all its samples in the batch, with
    gradients. Where a batch shows one domain alone (separate forwards, a stage without the source),
    the other's running averages stand for its part, without gradients; as long as training has
    never shown that other domain, those of the one at hand do. In evaluation the running averages
    of both are used, so a single image of either domain is normalised as its domain is.

    Args:
        norm: the batch norm that it replaces. Its scale and shift are taken; both domains start
            from its running statistics.

    Attributes:
        weight, bias: ``(C,)`` float parameters.
        source_mean, source_var, target_mean, target_var: ``(C,)`` running averages.
        source_batches, target_batches: of how many of this training each is made.
        track_running_stats: whether training changes them.
    """

    def __init__(self, norm: Any):
        super().__init__(*affine_parameters(norm))
        self.kind = type(norm)
        self.eps: float = norm.eps
        self.momentum: float = 0.1 if norm.momentum is None else norm.momentum
        self.track_running_stats = True
        mean = torch.zeros_like(self.weight) if norm.running_mean is None else norm.running_mean
        variance = torch.ones_like(self.weight) if norm.running_var is None else norm.running_var
        batches = torch.zeros((), dtype=torch.long, device=self.weight.device)
        for domain in DOMAINS:
            self.register_buffer(f"{domain}_mean", mean.detach().clone())
            self.register_buffer(f"{domain}_var", variance.detach().clone())
            self.register_buffer(f"{domain}_batches", batches.clone())
        self.training = norm.training

    @abstractmethod
    def scale_and_shift(self, domain: str, own: Moments, other: Moments) -> tuple[Tensor, Tensor]:
        """What a value of a channel is multiplied by and what is added, ``(C,)`` float each.

        Args:
            domain: of the value.
            own: moments of that domain.
            other: of the other domain.
        """

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, ...)`` to the same shape, B being that of the domains that it was told.

        Raises:
            UserError: see :meth:`DomainLayer.split_domains`; in training also where a domain has a
                single value per channel, which has no variance.
        """
        segments = self.split_domains(x)
        shown = dict.fromkeys(domain for domain, _ in segments)
        with without_autocast(x):
            moments = self._moments_of_batch(segments) if self.training else self._running_moments()
            affine = {
                domain: self.scale_and_shift(domain, moments[domain], moments[other_domain(domain)])
                for domain in shown
            }
        parts = [apply_affine(part, *affine[domain]) for domain, part in segments]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def start_target_from_source(self) -> None:
        """Copies the source's running statistics to the target."""
        for name in ("mean", "var", "batches"):
            self.get_buffer(f"target_{name}").copy_(self.get_buffer(f"source_{name}"))

    @torch.no_grad()
    def of_domain(self, domain: str) -> nn.Module:
        """The batch norm that computes what this layer does for a domain in evaluation."""
        moments = self._running_moments()
        scale, shift = self.scale_and_shift(domain, moments[domain], moments[other_domain(domain)])
        new = self.kind(len(scale), eps=self.eps).to(scale.device, scale.dtype)
        new.running_var.fill_(1 - self.eps)  # what it divides by is 1
        new.weight, new.bias = nn.Parameter(scale), nn.Parameter(shift)
        return cast(nn.Module, new.eval())

    def _running_moments(self) -> dict[str, Moments]:
        return {domain: self._running_moments_of(domain) for domain in DOMAINS}

    def _running_moments_of(self, domain: str) -> Moments:
        variance = to_float(self.get_buffer(f"{domain}_var"))
        return Moments(to_float(self.get_buffer(f"{domain}_mean")), variance, variance)

    def _moments_of_batch(self, segments: list[tuple[str, Tensor]]) -> dict[str, Moments]:
        moments: dict[str, Moments] = {}
        for domain in DOMAINS:
            parts = [part for name, part in segments if name == domain]
            if parts:
                whole = parts[0] if len(parts) == 1 else torch.cat(parts)
                moments[domain] = self._moments_of(domain, whole)
        for domain in DOMAINS:
            if domain in moments:
                self._update(domain, moments[domain])
            else:
                moments[domain] = self._stand_in(domain, moments[other_domain(domain)])
        return moments

    def _moments_of(self, domain: str, x: Tensor) -> Moments:
        axes = (0, *range(2, x.dim()))
        count = x.numel() // x.shape[1]
        if count < 2:
            raise UserError(
                f"{self.title} got 1 value per channel of the {domain}, which has no variance: "
                "expected more than 1 value per channel; use a batch of 2 or more images of each "
                "domain"
            )
        variance, mean = torch.var_mean(to_float(x), axes, correction=0)
        return Moments(mean, variance, variance * (count / (count - 1)))

    @torch.no_grad()
    def _update(self, domain: str, moments: Moments) -> None:
        if not self.track_running_stats:
            return
        for name, value in (("mean", moments.mean), ("var", moments.unbiased)):
            average = self.get_buffer(f"{domain}_{name}")
            average.lerp_(value.to(average.dtype), self.momentum)
        self.get_buffer(f"{domain}_batches").add_(1)

    def _stand_in(self, domain: str, shown: Moments) -> Moments:
        """The moments of a domain that the batch does not show."""
        seen = self.get_buffer(f"{domain}_batches") > 0
        pairs = zip(self._running_moments_of(domain), shown, strict=True)
        return Moments(*(torch.where(seen, running, own.detach()) for running, own in pairs))


class CrossDomainNormaliser(ActivationNormaliser):
    """Puts a :class:`DomainStatistics` in the place of each batch norm.

    The critic keeps batch norm. It is to tell the domains apart by the features; statistics of each
    domain would take out of them what it is to look at.
    """

    composes: ClassVar[bool] = False
    needs_target: ClassVar[bool] = True
    mixes_domains = True

    def for_part(self, part: str) -> Normaliser | None:
        """All but the critic, which keeps batch norm."""
        return None if part == "critic" else self

    @abstractmethod
    def layer(self, norm: nn.Module) -> DomainStatistics:
        """The layer that takes the place of a batch norm."""

    def build(self, channels: int, dimensions: int) -> nn.Module:
        """See :meth:`ActivationNormaliser.build`."""
        return self.layer(BatchNorm().build(channels, dimensions))

    def replacement_for(self, norm: nn.Module) -> nn.Module:
        """A layer that starts from the scale, shift and statistics of ``norm``."""
        return self.layer(norm)


def other_domain(domain: str) -> str:
    """The domain that is not ``domain``.

    >>> other_domain("source")
    'target'
    """
    return DOMAINS[1 - DOMAINS.index(domain)]


def to_float(x: Tensor) -> Tensor:
    """The same values in float32 or better."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def apply_affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``x * scale + shift`` for ``(B, C, ...)`` and ``(C,)`` each, in the dtype of ``x``."""
    shape = (-1, *(1 for _ in range(x.dim() - 2)))
    return (to_float(x) * scale.view(shape) + shift.view(shape)).to(x.dtype)
