"""A device without float64, such as Apple's MPS, played on the CPU."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

LEAVING = (Tensor.cpu, Tensor.numpy, Tensor.tolist, Tensor.item)


class FarDevice(TorchFunctionMode):
    """Follow the tensors that would be on the device, and fail where one of them is float64.

    On it are the tensors given, what is moved to a torch.device or made on one, and all that is
    computed from those. `.cpu()` brings a tensor back. `operations` counts what was computed there.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()
        self.operations = 0
        self._there = {id(tensor): tensor for tensor in tensors}  # held, so that ids stay theirs

    def __torch_function__(self, func, types, args=(), kwargs=None) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        goes = any(id(leaf) in self._there or isinstance(leaf, torch.device) for leaf in leaves)
        found = func(*args, **kwargs)
        if func in LEAVING:
            return found.clone() if func is Tensor.cpu else found
        for tensor in tree_leaves(found) if goes else []:
            if isinstance(tensor, Tensor):
                assert tensor.dtype != torch.float64, f"{func} makes float64 on the device"
                self.operations += 1
                self._there[id(tensor)] = tensor
        return found
