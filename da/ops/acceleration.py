"""Mixed precision, memory layout and compilation: the same training, faster."""

from __future__ import annotations

import sysconfig
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from da.errors import UserError

#: Pixels of the images that a CPU evaluates at a time: 128 of 32 x 32, 8 of 128 x 128. Fewer cost
#: more calls than they save, the maps of more leave the caches.
EVALUATION_PIXELS = 128 * 32 * 32

M = TypeVar("M", bound=nn.Module)

#: Graphs that may be compiled of one function before PyTorch falls back to running it uncompiled;
#: its own limit is 8. All parts of all networks in a process count as one function: each part has
#: one for training and some for evaluation, whose last batch is smaller.
GRAPHS = 256


def accelerate(part: M, channels_last: bool, compiled: bool) -> M:
    """Part of a network, changed in place: neither its parameters' values nor names change.

    Args:
        part: called with one tensor.
        channels_last: keep the weights of 2d convolutions in torch.channels_last.
        compiled: compile it by torch.compile, when it is first called.
    """
    if channels_last:
        part.to(memory_format=torch.channels_last)
    if compiled:
        refuse_without_compiler()
        config = torch._dynamo.config
        config.cache_size_limit = max(config.cache_size_limit, GRAPHS)
        part.compile()
    return part


def set_memory_layout(images: Tensor, channels_last: bool) -> Tensor:
    """The same images ``(B, C, H, W)``, in torch.channels_last where asked for."""
    return images.contiguous(memory_format=torch.channels_last) if channels_last else images


def evaluation_pieces(images: Tensor) -> tuple[Tensor, ...]:
    """Images ``(B, C, H, W)`` in the order, pieces and memory layout that evaluate fastest.

    On a CPU they are in torch.channels_last and ``EVALUATION_PIXELS`` at a time, whatever the
    layout of training is; on other devices all as they are.
    """
    if images.device.type != "cpu":
        return (images,)
    size = max(1, EVALUATION_PIXELS // images.shape[-2:].numel())
    return tuple(evaluation_layout(piece) for piece in images.split(size))


def evaluation_layout(images: Tensor) -> Tensor:
    """The same images ``(B, C, H, W)``; on a CPU in torch.channels_last."""
    return set_memory_layout(images, images.device.type == "cpu")


def refuse_without_compiler() -> None:
    """Says what is missing for torch.compile before anything is trained."""
    from torch._inductor import cpp_builder

    try:
        cpp_builder.get_cpp_compiler()
    except Exception as error:  # its class is private to torch
        raise UserError(
            "compile: torch.compile needs a C++ compiler, and there is none; install one (g++ or "
            "clang++), name it in the environment as CXX, or turn it off with --model.compile false"
        ) from error
    folder = sysconfig.get_path("include")
    if not Path(folder, "Python.h").exists():
        raise UserError(
            f"compile: torch.compile needs Python's header files, and '{folder}' has no Python.h; "
            "install them (python3-dev), or turn it off with --model.compile false"
        )


def uncompiled(model: nn.Module) -> AbstractContextManager[object]:
    """Within this block nothing is compiled, and what is compiled of ``model`` waits."""
    if any(part._compiled_call_impl is not None for part in model.modules()):
        return torch.compiler.set_stance("force_eager")
    return nullcontext()


def is_autocasting(x: Tensor) -> bool:
    """Whether operations on ``x`` run in autocast's lower precision."""
    return torch.is_autocast_enabled(x.device.type)


def to_full_precision(x: Tensor) -> Tensor:
    """What a network puts out under autocast, in float32; other tensors as they are."""
    return x.float() if is_autocasting(x) else x


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A block whose operations keep the precision of their arguments.

    Entropies, distances and the losses of critics are small differences of large numbers, and on
    a CPU autocast would leave ``softplus`` and ``log_softmax`` to bfloat16's 8 bits.
    """
    return torch.autocast(x.device.type, enabled=False) if is_autocasting(x) else nullcontext()
