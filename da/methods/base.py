"""The Lightning module that all methods share: surgery, heads, task loss, metrics, optimiser."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from da.errors import Diverged, UserError
from da.networks import pretrained
from da.networks.backbones.base import backbone as build_backbone
from da.networks.pretrained import Calibration
from da.norms import Normaliser, batch_norms, normaliser
from da.norms.weight_align.sharing import Shared, aligned_once, share, unshare
from da.ops.acceleration import LeanModule, accelerated, in_full, laid_out, without_autocast
from da.ops.optimisation import parameter_groups
from da.ops.schedules import annealing
from da.ops.seeding import derive, seeded
from da.types import Activations, Batch, Predictions

Part = Literal["backbone", "bottleneck", "critic"]


class AdaptationModule(LeanModule, ABC):
    """A classifier trained on a labelled source and an unlabelled target.

    The order of surgery lives here: pretrained weights, then the normaliser, then the heads, then
    the optimiser. A method adds its loss (:meth:`adaptation`) and its own parts (:meth:`part`).

    Args:
        num_classes: classes of the data; set from the data.
        task: name of the task, part of the seed of the initial weights; set from the data.
        seed: with the task and the part's name it gives the initial weights: they match across
            normalisers and methods, and differ across tasks.
        backbone: name of the network: ``resnet50``, or ``timm/NAME`` for any model of timm.
        weights: ``imagenet``, a local file, or nothing for random weights.
        norm: normaliser: ``bn``, ``wa``, ``wa+bn``, ``gn``, ``in``, ``ln``, ``none``, …
        norm_options: options of the normaliser by name, ``{gain: auto}``. ``include`` and
            ``exclude`` name layers of the backbone.
        scope: the parts that the normaliser covers; others keep batch norm.
        bottleneck: width of the Linear-normaliser-ReLU between backbone and classifier; nothing
            for none.
        forward_mode: both domains in one pass through the network (``joint``), or source, then
            target (``separate``). With batch norm the two give different networks.
        lr: learning rate of the heads at the start, and of a backbone from scratch. Nothing takes
            the published rates: 0.01 with pretrained weights, 0.1 from scratch.
        pretrained_factor: factor on the learning rate of a backbone with pretrained weights.
        momentum: of SGD with Nesterov's momentum.
        weight_decay: of SGD.
        decay: decay weights with two or more dimensions, or all parameters.
        anneal_alpha: the learning rate is lr · (1 + alpha · progress)^-beta; 0 keeps it constant.
        anneal_beta: see ``anneal_alpha``.
        horizon: progress is step / horizon instead of step / all steps of the run. The published
            settings of the adversarial methods use 10000, whatever the length of the run.
        conversion: how norm ``wa`` starts from pretrained weights: converted so that they compute
            nearly the same, on training images of the ``source`` or of ``both`` domains (no label
            is used); ``off`` aligns them as they are, which destroys what they compute.
        conversion_images: images that the conversion sees, of ``both`` half each.
        channels_last: keep images and the weights of convolutions in torch.channels_last, which is
            faster on most devices.
        compile: compile the network with torch.compile; the first steps take a minute or more.
    """

    def __init__(
        self,
        num_classes: int,
        task: str = "",
        seed: int = 0,
        backbone: str = "digits_resnet",
        weights: str | None = None,
        norm: str = "bn",
        norm_options: dict[str, Any] | None = None,
        scope: Sequence[Part] = ("backbone", "bottleneck", "critic"),
        bottleneck: int | None = 256,
        forward_mode: Literal["joint", "separate"] = "joint",
        lr: float | None = None,
        pretrained_factor: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 1e-3,
        decay: Literal["weights", "all"] = "weights",
        anneal_alpha: float = 10.0,
        anneal_beta: float = 0.75,
        horizon: int | None = None,
        conversion: Calibration = "source",
        conversion_images: int = 512,
        channels_last: bool = False,
        compile: bool = False,
    ):
        super().__init__()
        self.save_hyperparameters()
        if num_classes < 2:
            raise UserError(f"num_classes: expected at least 2 classes, got {num_classes}")
        if lr is None:
            lr = self.hparams["lr"] = 0.1 if weights is None else 0.01
        if lr <= 0:
            raise UserError(f"lr: expected a learning rate above 0, got {lr}")
        for option, size in (("bottleneck", bottleneck), ("horizon", horizon)):
            if size is not None and size < 1:
                raise UserError(f"{option}: expected a whole number from 1 or null, got {size}")
        if not 0 <= momentum < 1:
            raise UserError(f"momentum: expected a number from 0 up to but not 1, got {momentum}")
        if weight_decay < 0:
            raise UserError(f"weight_decay: expected a number from 0, got {weight_decay}")
        normaliser(norm, **(norm_options or {}))  # a wrong name or option is refused in any scope
        self.start = pretrained.start(self.hparams)
        self.converted: dict[str, Any] | None = None
        self.backbone = self.part("backbone", lambda: build_backbone(backbone, weights))
        width = self.backbone.num_features
        self.bottleneck: nn.Module = nn.Identity()
        if bottleneck is not None:
            features, out = width, bottleneck
            self.bottleneck = self.part(
                "bottleneck",
                lambda: nn.Sequential(
                    nn.Linear(features, out, bias=False), nn.BatchNorm1d(out), nn.ReLU()
                ),
            )
            width = bottleneck
        self.num_features = width
        # The last classifier is left as it is under every normaliser.
        with seeded(seed, task, "classifier"):
            self.classifier = nn.Linear(width, num_classes)
        accelerated(self.classifier, channels_last, compile)
        self.initial_loss: float | None = None
        self.clipped: list[bool] = []
        self.predictions: list[Predictions] = []
        self._collected: list[list[tuple[Tensor, Tensor, Tensor]]] = []
        self._steps: int | None = None
        self._shared: list[Shared] = []
        self._evaluating: list[Shared] = []

    def part(self, name: Part, build: Callable[[], nn.Module]) -> Any:
        """Builds a part with its own named seed, and puts the normaliser in if it is in scope.

        Every part is built with batch norm first, so that all normalisers start from the same
        weights wherever shapes agree.
        """
        with seeded(self.hparams["seed"], self.hparams["task"], name):
            module = build()
            if name in self.hparams["scope"]:
                module = self._normaliser(name).apply(module)
        return accelerated(module, self.hparams["channels_last"], self.hparams["compile"])

    def _normaliser(self, part: Part) -> Normaliser:
        """The normaliser of a part; layers are included and excluded by name in the backbone."""
        options = self.hparams["norm_options"] or {}
        if part != "backbone":
            options = {k: v for k, v in options.items() if k not in ("include", "exclude")}
        return normaliser(self.hparams["norm"], **options)

    # What a method adds.

    #: Whether training forwards the target at all. Source-only must not: with a joint forward the
    #: target would leak into the running statistics of batch norm.
    uses_target: bool = True

    @abstractmethod
    def adaptation(self, source: Activations, target: Activations) -> dict[str, Tensor]:
        """The method's loss terms, named, each already multiplied by its trade-off.

        They are added to the cross-entropy on the source and logged one by one. Other values to
        log go through :meth:`log`.
        """

    # Forward and training.

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, K)`` of images ``(B, C, H, W)``."""
        return self.activations(images).logits

    def activations(self, images: Tensor) -> Activations:
        """Features ``(B, F)`` and logits ``(B, K)`` of images ``(B, C, H, W)``."""
        images = laid_out(images, self.hparams["channels_last"])
        features = self.bottleneck(self.backbone(images))
        return Activations(in_full(features), in_full(self.classifier(features)))

    def both(self, source: Tensor, target: Tensor) -> tuple[Activations, Activations]:
        """Activations of both domains, in one joint pass or in two, source first."""
        if self.hparams["forward_mode"] == "separate":
            with aligned_once(self):
                return self.activations(source), self.activations(target)
        joint = self.activations(torch.cat([source, target]))
        sizes = [len(source), len(target)]
        first, second = zip(*(x.split(sizes) for x in joint), strict=True)
        return Activations(*first), Activations(*second)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """All loss terms of a batch: ``task`` (source cross-entropy) and the method's own."""
        if self.uses_target:
            source, target = self.both(batch.source.images, batch.target.images)
            with without_autocast(source.features):
                terms = self.adaptation(source, target)
        else:
            source, terms = self.activations(batch.source.images), {}
        return {"task": F.cross_entropy(source.logits, batch.source.labels), **terms}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step: the sum of all loss terms."""
        self.logging = self.is_read()
        losses = self.losses(batch)
        total = reduce(torch.add, losses.values())
        if not math.isfinite(total.item()):
            terms = ", ".join(f"{name} {loss.item():g}" for name, loss in losses.items())
            raise Diverged(
                f"diverged: the loss at step {self.global_step} is not finite ({terms}); "
                f"lower the learning rate (now {self.hparams['lr']:g}) or check the data"
            )
        if self.initial_loss is None:
            self.initial_loss = losses["task"].item()
        for name, loss in losses.items():
            self.log(f"loss/{name}", loss.detach())
        self.logging = True
        return total

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Micro-batches of one optimiser step share their aligned weights."""
        # Where gradients are scaled (float16), those held back would be so after the others are
        # not any more.
        if self.trainer.accumulate_grad_batches > 1 and self.trainer.precision != "16-mixed":
            self._shared += share(self, micro_batches=True)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Takes the micro-batches' gradients through the alignment, once."""
        if self._shared:
            unshare(self._shared)
            self._shared = []

    @property
    def progress(self) -> float:
        """Training progress p: step / total steps, or step / horizon where one is set."""
        return self.global_step / (self._steps or self._all_steps())

    def _all_steps(self) -> int:
        return self.hparams["horizon"] or max(1, int(self.trainer.estimated_stepping_batches))

    def on_train_start(self) -> None:
        """Keeps the length of the run, which every step asks for several times."""
        self._steps = self._all_steps()

    def on_fit_start(self) -> None:
        """Refuses a batch of one image under batch norm; then pretrained weights are converted."""
        data: Any = getattr(self.trainer, "datamodule")  # noqa: B009
        self.refuse_batch_of_one(data.batch_size)
        if self.trainer.ckpt_path is None:  # what is resumed has its weights
            self.convert(data)

    def convert(self, data: Any) -> None:
        """Keeps the function of pretrained weights under WeightAlign: before training, and once."""
        if self.start is not None and self.converted is None:
            self.converted = pretrained.convert(self.backbone, self.start, data, self.device)

    def refuse_batch_of_one(self, batch_size: int) -> None:
        """Batch norm has no statistics of one image; on feature maps PyTorch says nothing.

        ``norm_options: {single_image: true}`` allows it where every batch norm sees a map, whose
        statistics are then those of its one image, as in instance norm.
        """
        layers = batch_norms(self)
        if batch_size > 1 or not layers:
            return
        vectors = any(isinstance(layer, nn.BatchNorm1d) for layer in layers.values())
        if vectors or not (self.hparams["norm_options"] or {}).get("single_image"):
            raise UserError(
                f"batch_size 1 with norm '{self.hparams['norm']}': batch norm has no statistics "
                f"of one image ({len(layers)} layers, the first {next(iter(layers))}); use a batch "
                "of 2 or more, or a normaliser without batch statistics such as 'wa' or 'gn'"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what the result says of the whole run."""
        kept = ("initial_loss", "clipped", "converted")
        checkpoint["run"] = {name: getattr(self, name) for name in kept}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on with it: a resumed run began where the first one did."""
        vars(self).update(checkpoint.get("run", {}))

    def on_train_epoch_start(self) -> None:
        """Reseeds dropout and its like, so that a run that is resumed goes on as it would have."""
        torch.manual_seed(
            derive(self.hparams["seed"], self.hparams["task"], "noise", self.current_epoch)
        )

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips as the trainer is told to, and counts how often that changed a gradient."""
        if not gradient_clip_val:
            return
        kind = float("inf") if gradient_clip_algorithm == "value" else 2.0
        grads = [p.grad for p in self.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(grads, kind)
        self.clipped.append(bool(norm > gradient_clip_val))
        self.log("clipped", float(self.clipped[-1]), on_step=False, on_epoch=True)
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    # Evaluation.

    def on_validation_epoch_start(self) -> None:
        """Starts collecting, with weights that are aligned once."""
        self._collected = []
        self._evaluating = share(self)

    def on_validation_epoch_end(self) -> None:
        """Gathers predictions per stream, in the order of the loaders."""
        unshare(self._evaluating)
        self.predictions = [
            Predictions.of(torch.cat(x), torch.cat(y), torch.cat(f))
            for x, y, f in (zip(*parts, strict=True) for parts in self._collected)
        ]
        streams = getattr(self.trainer, "datamodule").evaluations  # noqa: B009
        for (role, split), found in zip(streams, self.predictions, strict=False):
            correct = (found.logits.argmax(dim=1) == found.labels).float().mean()
            self.log(f"accuracy/{role}/{split}", correct, prog_bar=split == "test")

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collects logits and labels of one batch of one stream."""
        while len(self._collected) <= dataloader_idx:
            self._collected.append([])
        out = self.activations(batch.images)
        self._collected[dataloader_idx].append(
            (out.logits.float().cpu(), batch.labels.cpu(), out.features.float().cpu())
        )

    # Optimiser.

    def configure_optimizers(self) -> Any:
        """SGD with Nesterov's momentum, annealed over progress at every step."""
        h = self.hparams
        factor = h["pretrained_factor"] if h["weights"] is not None else 1.0
        optimiser = torch.optim.SGD(
            parameter_groups(
                self.named_parameters(), h["lr"], factor, h["weight_decay"], h["decay"]
            ),
            lr=h["lr"],
            momentum=h["momentum"],
            nesterov=h["momentum"] > 0,
        )
        # At step 0 the progress is 0 without asking the trainer for the length of the run: that
        # would start the training stream, before a resumed run knows which step it is at.
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser,
            lambda step: annealing(
                self.progress if step else 0.0, h["anneal_alpha"], h["anneal_beta"]
            ),
        )
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
