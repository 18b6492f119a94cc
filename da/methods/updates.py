"""From losses to updates: gradients, clipping, sharpness, and the check that all is finite."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from da.errors import Diverged, UserError
from da.methods.lean_module import LeanModule
from da.norms.weight_align.sharing import SharedWeight, begin_sharing, end_sharing
from da.ops.acceleration import without_autocast
from da.ops.clipping import GRADIENT_CLIP_VAL
from da.ops.sharpness import perturbed


@dataclass(frozen=True)
class Sharpness:
    """Terms whose sharpness is minimised too (SAM, Foret et al. 2021, eq. 2).

    Their gradient is taken at w + radius · g / ‖g‖, where g is their gradient at w (all norms over
    what the step updates); that of the other terms at w. Running statistics of batch norm are
    those of the pass at w alone.

    Attributes:
        terms: names of losses.
        radius: rho.
    """

    terms: Sequence[str]
    radius: float = 0.05


class Step(NamedTuple):
    """One update of the parameters within a batch.

    Attributes:
        compute: gives the loss terms by name; their sum is minimised. Called once, and a second
            time where sharpness is minimised.
        update: names of the parts that are updated, as in ``network.backbone`` or ``critic``; None
            for all. The others get no gradient.
        sharpness: terms whose sharpness counts, if any.
    """

    compute: Callable[[], Mapping[str, Tensor]]
    update: Sequence[str] | None = None
    sharpness: Sharpness | None = None


class Updates(NamedTuple):
    """How gradients become updates, the same for all methods.

    Attributes:
        gradient_clip_val: largest norm (or value) of the gradient; None for any.
        gradient_clip_algorithm: whether the norm of all gradients is clipped, or each value.
        accumulate_grad_batches: batches whose gradients are averaged for one update.
    """

    gradient_clip_val: float | None = GRADIENT_CLIP_VAL
    gradient_clip_algorithm: Literal["norm", "value"] = "norm"
    accumulate_grad_batches: int = 1


class UpdatingModule(LeanModule):
    """A Lightning module whose batches are made of steps; the one place where updates are made.

    Progress counts batches, however many updates each of them makes.

    Attributes:
        updates: how gradients become updates; set before training.
        clipped: of each update so far, whether clipping changed its gradient.
        before_clipping: called before each update, once its gradients are whole: the hook of a
            callback comes before those of micro-batches have gone through the alignment.
        before_backward: called with the loss terms of each update, before they are differentiated.
        only_looking: whether a backward pass at hand is one of those looks, whose gradients go
            nowhere.
        initial_loss: the task loss of the very first batch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.updates = Updates()
        self.clipped: list[bool] = []
        self._clipped_so_far = (0, 0)
        self.before_clipping: list[Callable[[], None]] = []
        self.before_backward: list[Callable[[Mapping[str, Tensor]], None]] = []
        self.only_looking = False
        self.initial_loss: float | None = None
        self._batch_number: int | None = None
        self._shared: list[SharedWeight] = []
        self._noted: Counter[str] = Counter()
        self._outside: dict[tuple[str, ...], list[nn.Parameter]] = {}

    def setup(self, stage: str) -> None:
        """Takes from the trainer how gradients become updates, where it says."""
        self._outside = {}
        super().setup(stage)
        self.updates = getattr(self.trainer, "updates", self.updates)

    def steps(self, batch: Any) -> Iterator[Step]:
        """The updates that a batch makes, in order; what follows a ``yield`` runs after it."""
        raise NotImplementedError

    @property
    def logged_terms(self) -> list[str]:
        """Names under which the last batch logged its losses."""
        return [
            f"loss/{name}/{i}" if i > 1 else f"loss/{name}"
            for name, number in self._noted.items()
            for i in range(1, number + 1)
        ]

    @property
    def batches_done(self) -> int:
        """Batches whose updates are made; within a batch, those before it."""
        return self.global_step if self._batch_number is None else self._batch_number

    def clipped_share(self) -> float | None:
        """The share of the updates so far whose gradient was clipped; None where none could be.

        Those that were counted before are not counted again, also where a run is long.
        """
        counted, number = self._clipped_so_far
        number += sum(self.clipped[counted:])
        self._clipped_so_far = len(self.clipped), number
        return number / len(self.clipped) if self.clipped else None

    @property
    def makes_one_update(self) -> bool:
        """Whether every batch makes one plain update, so that gradients can be accumulated."""
        return True

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """All updates of a batch; returns the sum of the losses of the first."""
        self._read = self.is_read()
        self.logging = self._read or self.listener is not None
        self._batch_number = self.global_step
        self._noted.clear()
        total: Tensor | None = None
        try:
            for number, step in enumerate(self.steps(batch)):
                loss = self._make(step, number, batch_idx)
                total = loss if total is None else total
            if self.logging and (share := self.clipped_share()) is not None:
                self.log("clipped", share)
        finally:
            self._batch_number = None
            self.logging = self._read = True
        if total is None:
            raise RuntimeError(f"{type(self).__name__}.steps made no step of a batch")
        if self._updates_now(batch_idx):
            schedules: Any = self.lr_schedulers() or []
            for schedule in schedules if isinstance(schedules, list) else [schedules]:
                schedule.step()
        return total

    def _updates_now(self, batch_idx: int) -> bool:
        """Whether a batch ends those whose gradients are averaged."""
        return (batch_idx + 1) % self.updates.accumulate_grad_batches == 0 or bool(
            self.trainer.is_last_batch
        )

    def _make(self, step: Step, number: int, batch_idx: int) -> Tensor:
        """One update, or its gradients where those of several batches are averaged."""
        accumulated = self.updates.accumulate_grad_batches
        optimiser: Any = self.optimizers()
        if number or batch_idx % accumulated == 0:
            optimiser.zero_grad(set_to_none=True)
        with self._only(step.update):
            total = self._backward(step, 1 / accumulated)
        if not self._updates_now(batch_idx):
            return total
        if number == 0:
            optimiser.step()  # counted by Lightning: one a batch
        else:
            self.trainer.strategy.optimizer_step(optimiser.optimizer, _do_nothing, self)
        return total

    def _backward(self, step: Step, scale: float) -> Tensor:
        losses = step.compute()
        total = reduce(torch.add, losses.values())
        self._check(losses, total)
        self._note(losses)
        for look in self.before_backward:
            look(losses)
        sharp = step.sharpness.terms if step.sharpness else ()
        if step.sharpness is None:
            self._differentiate(total, scale)
            return total.detach()
        for name in sharp:
            if name not in losses:
                raise RuntimeError(f"sharpness of '{name}', which is none of {', '.join(losses)}")
        parameters = [p for p in self.parameters() if p.requires_grad]
        at = reduce(torch.add, (losses[name] for name in sharp))
        # Scaled where losses are (float16), or small gradients would be none; the length of ε is
        # the same.
        scaler: Any = getattr(self.trainer.precision_plugin, "scaler", None)
        with without_autocast(at):
            gradients = torch.autograd.grad(
                at if scaler is None else scaler.scale(at),
                parameters,
                retain_graph=True,
                allow_unused=True,
            )
        other_terms = [loss for name, loss in losses.items() if name not in sharp]
        if other_terms:
            self._differentiate(reduce(torch.add, other_terms), scale)
        with perturbed(parameters, gradients, step.sharpness.radius), frozen_statistics(self):
            logging, self.logging = self.logging, False  # what is read is of the pass at w
            again = step.compute()
            self.logging = logging
            self._differentiate(reduce(torch.add, (again[name] for name in sharp)), scale)
        return total.detach()

    def _differentiate(self, loss: Tensor, scale: float) -> None:
        if not loss.requires_grad:
            return
        with without_autocast(loss):
            self.manual_backward(loss if scale == 1 else loss * scale)

    def _check(self, losses: Mapping[str, Tensor], total: Tensor) -> None:
        if math.isfinite(total.item()):
            return
        terms = ", ".join(f"{name} {loss.item():g}" for name, loss in losses.items())
        raise Diverged(
            f"diverged: the loss at step {self.batches_done} is not finite ({terms}); "
            f"lower the learning rate (now {self.hparams['lr']:g}) or check the data"
        )

    def _note(self, losses: Mapping[str, Tensor]) -> None:
        if self.initial_loss is None and "task" in losses:
            self.initial_loss = losses["task"].item()
        for name, loss in losses.items():
            self._noted[name] += 1  # a later update of the batch may have a term of the same name
            number = f"/{self._noted[name]}" if self._noted[name] > 1 else ""
            self.log(f"loss/{name}{number}", loss.detach())

    @contextmanager
    def _only(self, parts: Sequence[str] | None) -> Iterator[None]:
        """Within this block only the parameters of some parts take gradients."""
        if parts is None:
            yield
            return
        frozen = [p for p in self._others(tuple(parts)) if p.requires_grad]
        for parameter in frozen:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)

    def _others(self, parts: tuple[str, ...]) -> list[nn.Parameter]:
        """The parameters outside some parts: looked for once, as the optimiser's are."""
        if parts not in self._outside:
            modules = dict(self.named_modules())
            for part in parts:
                if part not in modules:
                    raise RuntimeError(f"{type(self).__name__} has no part '{part}' to update")
            chosen = {id(p) for part in parts for p in modules[part].parameters()}
            self._outside[parts] = [p for p in self.parameters() if id(p) not in chosen]
        return self._outside[parts]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Micro-batches of one update share their aligned weights."""
        # Where gradients are scaled (float16), those held back would be so after the others are
        # not any more.
        if self.updates.accumulate_grad_batches > 1 and self.trainer.precision != "16-mixed":
            self._shared += begin_sharing(self, micro_batches=True)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Takes the micro-batches' gradients through the alignment, once; then clips."""
        if self._shared:
            end_sharing(self._shared)
            self._shared = []
        for look in self.before_clipping:
            look()
        self._clip()

    def _clip(self) -> None:
        """Clips, and counts how often that changed a gradient."""
        limit = self.updates.gradient_clip_val
        if not limit:
            return
        parameters = [p for p in self.parameters() if p.grad is not None]
        by_value = self.updates.gradient_clip_algorithm == "value"
        kind = float("inf") if by_value else 2.0
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None], kind)
        self.clipped.append(bool(norm > limit))
        if by_value:
            nn.utils.clip_grad_value_(parameters, limit)
        else:
            nn.utils.clip_grads_with_norm_(parameters, limit, norm)

    def refuse_accumulation(self) -> None:
        """Refuses to average gradients over batches where a batch makes several updates.

        Raises:
            UserError: with the option's name.
        """
        if self.updates.accumulate_grad_batches > 1 and not self.makes_one_update:
            raise UserError(
                f"accumulate_grad_batches: {type(self).__name__} makes updates of its own within "
                "each batch, so that gradients can't be averaged over batches; leave it out, or "
                "raise the batch size"
            )


def _do_nothing() -> None:
    """The closure of an optimiser whose gradients are there."""


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Within this block batch norms normalise as before, and leave their running statistics alone.

    So do layers that keep them of each domain.

    They are not told of the batches, where restoring the statistics afterwards would forbid a
    backward pass after the block: autograd holds on to them.
    """
    tracking: list[Any] = [m for m in module.modules() if getattr(m, "track_running_stats", False)]
    for layer in tracking:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in tracking:
            layer.track_running_stats = True
