"""A Lightning module around a plain network: surgery, seeds, optimiser, progress, evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from da.errors import UserError, refuse_infinite, refuse_negative
from da.methods.batches_of_one import refuse_batches_of_one
from da.methods.normaliser_scope import PARTS, Part, refuse_scope
from da.methods.updates import UpdatingModule
from da.networks.backbones.base import build_backbone as build_backbone
from da.networks.network import Network, build_bottleneck, evaluate_images
from da.networks.pretrained_conversion import (
    Calibration,
    backbone_options,
    conversion_plan,
    read_trained_backbone,
)
from da.networks.weight_files import WeightFile, load_weight_file
from da.norms import Normaliser, normaliser, short_name
from da.norms.weight_align.coverage import measure_coverage
from da.norms.weight_align.sharing import SharedWeight, begin_sharing, end_sharing
from da.ops.acceleration import accelerate
from da.ops.optimisation import build_optimiser, parameter_groups, refuse_optimiser
from da.ops.schedules import learning_rate_factor
from da.ops.seeding import random_state, seeded
from da.types import Activations, DataModule, Predictions


class NetworkModule(UpdatingModule):
    """Holds a plain network and what training it takes, whatever the method.

    Args:
        num_classes: classes of the data; set from the data.
        task: name of the task, part of the seed of the initial weights; set from the data.
        seed: with the task and the part's name it gives the initial weights: they match across
            normalisers and methods, and differ across tasks.
        backbone: name of the network: ``resnet50``, or ``timm/NAME`` for any model of timm.
        weights: ``imagenet``, a local file, of ours with the heads that fit, or nothing for random.
        norm: normaliser: ``bn``, ``wa``, ``wa+bn``, ``gn``, ``in``, ``ln``, ``none``, …
        norm_options: options of the normaliser by name, ``{gain: auto}``. ``include`` and
            ``exclude`` name layers of the backbone.
        scope: the parts that the normaliser covers; others keep batch norm.
        bottleneck: width of the Linear-normaliser-ReLU before the classifier; nothing for none.
        forward_mode: both domains in one pass through the network (``joint``), or source, then
            target (``separate``). With batch norm the two give different networks. Without effect
            on a method that forwards one domain at a time anyway (SourceOnly, SHOT, AaD).
        lr: learning rate of the heads at the start, and of a backbone from scratch. Nothing takes
            the published rates: 0.01 with pretrained weights, 0.1 from scratch.
        pretrained_factor: factor on the learning rate of a backbone with pretrained weights.
        optimizer: ``sgd`` with Nesterov's momentum, ``adam`` or ``adamw``.
        momentum: of SGD; the first beta of the others.
        weight_decay: of the optimiser.
        decay: decay weights with two or more dimensions, or all parameters.
        anneal_alpha: the learning rate is lr · (1 + alpha · progress)^-beta; 0 keeps it constant.
        anneal_beta: see ``anneal_alpha``.
        warmup: the share of progress over which the learning rate rises from a tenth to the whole.
        horizon: progress is step / horizon instead of step / all steps of the run. The published
            settings of the adversarial methods use 10000, whatever the length of the run.
        conversion: how norm ``wa``, alone or with one of activations (``wa+bn``), starts from
            pretrained weights: converted so that they compute nearly the same, on training images
            of the ``source`` or of ``both`` domains (no label is used); ``off`` aligns them as they
            are, which destroys what they compute.
        conversion_images: images that the conversion sees, of ``both`` half each.
        channels_last: keep images and the weights of convolutions in torch.channels_last, which is
            faster on most devices.
        compile: compile the network with torch.compile; the first steps take a minute or more.

    Attributes:
        network: the plain network that is trained, usable without the module.
        rates: factors on the learning rate, of parts by name.
        part_norms: the short name of each part's normaliser, by the part's name.
        noise: the random state of the checkpoint that is gone on from.
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
        optimizer: Literal["sgd", "adam", "adamw"] = "sgd",
        momentum: float = 0.9,
        weight_decay: float = 1e-3,
        decay: Literal["weights", "all"] = "weights",
        anneal_alpha: float = 10.0,
        anneal_beta: float = 0.75,
        warmup: float = 0.0,
        horizon: int | None = None,
        conversion: Calibration = "source",
        conversion_images: int = 512,
        channels_last: bool = False,
        compile: bool = False,
    ):
        given = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        super().__init__()
        self.save_hyperparameters()
        # On a command line some versions of Lightning save what was parsed, not what came.
        self.hparams.update(given)
        if num_classes < 2:
            raise UserError(f"num_classes: expected at least 2 classes, got {num_classes}")
        refuse_infinite(**self.hparams)  # of the method's own options, too
        if lr is None:
            lr = self.hparams["lr"] = 0.1 if weights is None else 0.01
        if lr <= 0:
            raise UserError(f"lr: expected a learning rate above 0, got {lr}")
        for option, size in (("bottleneck", bottleneck), ("horizon", horizon)):
            if size is not None and size < 1:
                raise UserError(f"{option}: expected a whole number from 1 or null, got {size}")
        refuse_optimiser(optimizer, momentum, weight_decay, warmup)
        # Of whichever method: a loss that is climbed has no lowest value.
        trade_offs = {k: v for k, v in self.hparams.items() if k.endswith("trade_off")}
        rates = ("pretrained_factor", "anneal_alpha", "anneal_beta")
        refuse_negative(**trade_offs, **{name: given[name] for name in rates})
        normaliser(norm, **(norm_options or {}))  # a wrong name or option is refused in any scope
        refuse_scope(scope)
        trained = read_trained_backbone(self.hparams)
        self.conversion_plan = None if trained else conversion_plan(self.hparams)
        self.converted: dict[str, Any] | None = None
        self.rates: dict[str, float] = {}
        self.part_norms: dict[str, str] = {}
        self.noise: dict[str, Tensor] = {}
        self.network = self._build_network(num_classes, trained)
        self.predictions: list[Predictions] = []
        self._collected: list[list[tuple[Tensor, Tensor, Tensor]]] = []
        self._steps: int | None = None
        self._evaluating: list[SharedWeight] = []

    def _build_network(self, num_classes: int, trained: WeightFile | None) -> Network:
        h = self.hparams
        weights = h["weights"] if trained is None else None
        backbone = self.part("backbone", lambda: build_backbone(h["backbone"], weights))
        if trained is not None:
            load_weight_file(backbone, trained)
        width = backbone.num_features
        bottleneck: nn.Module = nn.Identity()
        if h["bottleneck"] is not None:
            features, out = width, h["bottleneck"]
            bottleneck = self.part("bottleneck", lambda: self.build_bottleneck(features, out))
            width = out
        self.num_features = width
        # The last classifier is left as it is under every normaliser.
        with seeded(h["seed"], h["task"], "classifier"):
            classifier = self.build_classifier(width, num_classes)
        accelerate(classifier, h["channels_last"], h["compile"])
        return Network(backbone, bottleneck, classifier, self.taps(), h["channels_last"])

    def part(
        self,
        name: str,
        build: Callable[[], nn.Module],
        covered_as: Part | None = None,
        rate: float = 1.0,
    ) -> Any:
        """Builds a part with its own named seed, and puts the normaliser in if it is in scope.

        Every part is built with batch norm first, so that all normalisers start from the same
        weights wherever shapes agree.

        Args:
            name: of the part, in the seed of its weights.
            build: makes it.
            covered_as: the part of ``scope`` that it counts as; by default ``name`` itself.
            rate: factor on its learning rate; for parts that the method keeps under this name.
        """
        kind = covered_as or name
        with seeded(self.hparams["seed"], self.hparams["task"], name):
            module = build()
            norm, chosen = self._normaliser(kind)
            if chosen is not None:
                module = chosen.apply(module)
        if kind in PARTS:
            self.part_norms[name] = norm
        if rate != 1.0:
            self.rates[name] = rate
        return accelerate(module, self.hparams["channels_last"], self.hparams["compile"])

    def _normaliser(self, part: str) -> tuple[str, Normaliser | None]:
        """The normaliser of a part with its short name; None where batch norm stays.

        Layers are included and excluded by name in the backbone, and fewer of its layers are
        aligned where its pretrained weights are converted.
        """
        h = self.hparams
        if part not in h["scope"]:
            return "bn", None
        options = backbone_options(h)
        if part != "backbone":
            options = h["norm_options"] or {}
            options = {k: v for k, v in options.items() if k not in ("include", "exclude")}
        own = normaliser(h["norm"], **options)
        chosen = own.for_part(part)
        if chosen is own:
            return short_name(h["norm"]), own
        return ("bn", None) if chosen is None else (chosen.name, chosen)

    def alignment(self) -> dict[str, Any] | None:
        """Which convolutions of the backbone are aligned, for the result; None where none is."""
        coverage = measure_coverage(self.network.backbone)
        return None if coverage is None else coverage.as_dict()

    def taps(self) -> Sequence[str]:
        """Modules of the network whose outputs are read."""
        return ()

    def build_bottleneck(self, features: int, width: int) -> nn.Module:
        """The bottleneck, ``(B, features)`` to ``(B, width)``, with batch norm as everywhere."""
        return build_bottleneck(features, width)

    def build_classifier(self, features: int, classes: int) -> nn.Module:
        """The classifier, features ``(B, features)`` to logits ``(B, classes)``."""
        return nn.Linear(features, classes)

    def evaluated(self) -> Network:
        """The network that is evaluated, kept and exported: a teacher, a mean of classifiers."""
        return self.network

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, K)`` of images ``(B, C, H, W)``."""
        return self.activations(images).logits

    def activations(self, images: Tensor, domain: str = "target") -> Activations:
        """Features ``(B, F)`` and logits ``(B, K)`` of images ``(B, C, H, W)``, as evaluated."""
        return evaluate_images(self.evaluated(), images, domain)

    @property
    def data(self) -> DataModule:
        """The data module of the run."""
        data: DataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        return data

    def refuse_batch_of_one(self, batch_size: int, images: Iterable[Tensor] = ()) -> None:
        """See :func:`refuse_batches_of_one`; larger batches pass."""
        if batch_size == 1:
            norm = normaliser(self.hparams["norm"], **(self.hparams["norm_options"] or {}))
            refuse_batches_of_one(self, self.network, self.hparams["norm"], norm, images)

    # Progress and checkpoints.

    @property
    def progress(self) -> float:
        """Training progress p: batches done / all of the run, or / horizon where one is set."""
        return self.batches_done / (self._steps or self._all_steps())

    def _all_steps(self) -> int:
        return int(self.hparams["horizon"] or self.count_steps())

    def count_steps(self) -> int:
        """The steps of the whole run, as ``batches_done`` counts them."""
        trainer: Any = self.trainer
        accumulated = self.updates.accumulate_grad_batches
        if accumulated == 1:
            return max(1, int(trainer.estimated_stepping_batches))
        if trainer.max_epochs == -1:
            return max(1, trainer.max_steps)
        steps = -(-int(trainer.num_training_batches) // accumulated) * trainer.max_epochs
        return max(1, min(steps, trainer.max_steps) if trainer.max_steps > 0 else steps)

    def on_train_start(self) -> None:
        """Keeps the length of the run, which every step asks for several times."""
        self._steps = self._all_steps()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what the result says of the whole run, and where dropout and its like are."""
        of_the_run = ("initial_loss", "clipped", "converted")
        checkpoint["run"] = {name: getattr(self, name) for name in of_the_run}
        checkpoint["run"]["noise"] = random_state(self.device)
        evaluated = self.evaluated().backbone
        names = (name for name, part in self.named_modules() if part is evaluated)
        checkpoint["backbone"] = next(names, None)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores it: a resumed run began where the first one did."""
        vars(self).update(checkpoint.get("run", {}))

    # Evaluation.

    def on_validation_epoch_start(self) -> None:
        """Starts collecting, with weights that are aligned once."""
        self._collected = []
        self._evaluating = begin_sharing(self.evaluated())

    def on_validation_epoch_end(self) -> None:
        """Gathers predictions per stream, in the order of the loaders."""
        end_sharing(self._evaluating)
        self.predictions = [
            Predictions(torch.cat(x), torch.cat(y), torch.cat(f))
            for x, y, f in (zip(*parts, strict=True) for parts in self._collected)
        ]
        for (role, split), seen in zip(self.data.evaluations, self.predictions, strict=False):
            assert seen.labels is not None  # for the type checker
            correct = torch.eq(seen.logits.argmax(dim=1), seen.labels).float()
            if len(correct := correct[seen.labels >= 0]):
                self.log(f"accuracy/{role}/{split}", correct.mean(), prog_bar=split == "test")

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collects logits and labels of one batch of one stream."""
        while len(self._collected) <= dataloader_idx:
            self._collected.append([])
        role, _ = self.data.evaluations[dataloader_idx]
        out = self.activations(batch.images, role)
        self._collected[dataloader_idx].append(
            (out.logits.float().cpu(), batch.labels.cpu(), out.features.float().cpu())
        )

    # Optimiser.

    def configure_optimizers(self) -> Any:
        """The optimiser, its rate annealed over progress at every step."""
        for part in self.rates:
            self.get_submodule(part)  # a part that is kept under another name would have no rate
        h = self.hparams
        factors = {"network.backbone": h["pretrained_factor"]} if h["weights"] is not None else {}
        groups = parameter_groups(
            self.named_parameters(),
            h["lr"],
            {**factors, **self.rates},
            h["weight_decay"],
            h["decay"],
        )
        optimiser = build_optimiser(h["optimizer"], groups, h["lr"], h["momentum"])
        # At step 0 the progress is 0 without asking the trainer for the length of the run: that
        # would start the training stream, before a resumed run knows which step it is at.
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser,
            lambda step: learning_rate_factor(
                self.progress if step else 0.0, h["anneal_alpha"], h["anneal_beta"], h["warmup"]
            ),
        )
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
