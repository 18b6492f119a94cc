"""Training and evaluation with weights that are aligned once give what aligning anew gives."""

import pytest
import torch

from da.engine.trainer import MethodTrainer
from da.methods import network_module, updates
from da.methods.dann import DANN
from da.norms.weight_align import layers
from datasets.digits import Digits


def trained(folder, forward_mode="joint", clip=None, **kwargs):
    """Parameters after four optimiser steps of two micro-batches, and an evaluation."""
    module = DANN(10, norm="wa", bottleneck=16, critic_width=8, forward_mode=forward_mode, lr=0.01)
    trainer = MethodTrainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        gradient_clip_val=clip,
        **{"accumulate_grad_batches": 2, "limit_val_batches": 2} | kwargs,
    )
    trainer.fit(module, datamodule=Digits(batch_size=4, steps_per_epoch=7))
    return module


def without_sharing(monkeypatch):
    """Of micro-batches in training, and of the batches of an evaluation."""
    for module in (updates, network_module):
        monkeypatch.setattr(module, "begin_sharing", lambda *args, **kwargs: [])


@pytest.mark.parametrize("options", [{}, {"forward_mode": "separate"}, {"clip": 0.1}], ids=str)
def test_micro_batches_train_as_if_each_were_aligned_anew(options, tmp_path, monkeypatch):
    calls = []
    plain = layers.align
    monkeypatch.setattr(layers, "align", lambda *a: (calls.append(1), plain(*a))[1])
    module = trained(tmp_path, **options)
    number = sum(isinstance(m, layers.Aligned) for m in module.modules())
    # 7 batches are 4 steps (the last of one batch), and the evaluation of 4 streams is one more.
    assert len(calls) == number * 4 + (number - 2) * 1
    assert not any(m.shared for m in module.modules() if isinstance(m, layers.Aligned))
    without_sharing(monkeypatch)
    other = trained(tmp_path, **options)
    assert len(calls) > 2 * number * 5
    assert module.clipped == other.clipped
    for a, b in zip(module.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_one_batch_a_step_is_bitwise_as_without_sharing(tmp_path, monkeypatch):
    module = trained(tmp_path, accumulate_grad_batches=1)
    without_sharing(monkeypatch)
    other = trained(tmp_path, accumulate_grad_batches=1)
    assert all(
        torch.equal(a, b) for a, b in zip(module.parameters(), other.parameters(), strict=True)
    )
