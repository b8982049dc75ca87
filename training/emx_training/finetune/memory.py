"""Counts the memory of a training step at any model's full size, on a machine that could never hold it.

The step runs on torch's *meta* device, whose tensors have shapes but no numbers. Attention counts as CUDA's fused
kernels need it, and the 4-bit layers as bitsandbytes needs them.
"""

from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface

from emx_worker.model.architectures import Config, Model, architecture_of
from emx_worker.model.footprint import NF4_BITS
from emx_worker.model.int4.quantisation import DENSE_MODULES

META = torch.device("meta")
_ATTENTION = "emx-counted"


def meta_model(config: Config, nf4: bool) -> Model:
    """Return a frozen model without numbers, its weights in bf16, or its linear layers in NF4."""
    with META:
        model = architecture_of(config).model(config).to(torch.bfloat16)
    model.set_attn_implementation(_ATTENTION)
    for name, layer in list(model.named_modules()):
        if nf4 and isinstance(layer, nn.Linear) and not name.startswith(DENSE_MODULES):
            model.set_submodule(name, _FourBitLinear(layer))
    return model.requires_grad_(False)


def peak_bytes(model: PeftModel, batch: int, prompt: int, answer: int, image_size: int) -> int:
    """Return the most memory that the tensors of two training steps take at once, in bytes.

    Args:
        model: with its adapter, on the meta device.
        batch: images in a step.
        prompt: tokens before the answer, those of the image included.
        answer: tokens of the answer.
        image_size: pixels along each side.
    """
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], foreach=False)
    model.train()
    with _LiveTensors() as live:
        for tensor in (*model.parameters(), *model.buffers()):
            live.add(tensor)
        for _ in range(2):  # the optimiser's state is there from the second step on
            _forward(model, batch, prompt, answer, image_size).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
    peak: int = live.peak
    return peak


def _forward(model: PeftModel, batch: int, prompt: int, answer: int, image_size: int) -> Tensor:
    whole: Any = model.get_base_model()
    pixels = torch.empty(batch, 3, image_size, image_size, dtype=torch.bfloat16, device=META)
    seen = whole.model.get_image_features(pixels, return_dict=True).pooler_output
    length = prompt + answer
    ids = torch.zeros(batch, length - seen.shape[1], dtype=torch.long, device=META)
    embedded = torch.cat([seen.to(torch.bfloat16), whole.get_input_embeddings()(ids)], dim=1)
    mask = torch.empty(batch, 1, length, length, dtype=torch.bool, device=META)
    hidden = whole.model.language_model(
        inputs_embeds=embedded if embedded.requires_grad else embedded.requires_grad_(),
        attention_mask={"full_attention": mask, "sliding_attention": mask},
        position_ids=torch.arange(length, device=META)[None],
        use_cache=False,
    ).last_hidden_state
    logits = whole.lm_head(hidden[:, -answer - 1 : -1])
    labels = torch.zeros(batch * answer, dtype=torch.long, device=META)
    return nn.functional.cross_entropy(logits.float().flatten(0, 1), labels)


class _LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Knows which tensors are alive, and the most bytes that they have taken at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self._bytes = 0
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def add(self, tensor: Tensor) -> None:
        """Count a tensor's storage, if it isn't counted yet."""
        storage = tensor.untyped_storage()
        known = self._live.get(storage._cdata)
        if known and not known[0].expired():  # type: ignore[no-untyped-call]
            return
        self._live[storage._cdata] = StorageWeakRef(storage), storage.nbytes()  # type: ignore[no-untyped-call]
        self._bytes += storage.nbytes()
        if self._bytes > self.peak:
            self._live = {key: one for key, one in self._live.items() if not one[0].expired()}  # type: ignore[no-untyped-call]
            self._bytes = sum(size for _, size in self._live.values())
            self.peak = max(self.peak, self._bytes)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        return out


class _FusedAttention(torch.autograd.Function):
    """Keeps of attention what fused kernels keep: its inputs and its output, but no scores."""

    @staticmethod
    def forward(context: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        context.save_for_backward(query, key, value, out)
        return out

    @staticmethod
    def backward(context: Any, *_: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(torch.empty_like, context.saved_tensors[:3]))


def _counted_attention(_module: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Any:
    return _FusedAttention.apply(query, key, value).transpose(1, 2), None  # type: ignore[no-untyped-call]


AttentionInterface.register(_ATTENTION, _counted_attention)


class _Dequantised(torch.autograd.Function):
    """Multiplies with weights that exist in bf16 only during the product, as bitsandbytes does."""

    @staticmethod
    def forward(context: Any, hidden: Tensor, outputs: int) -> Tensor:
        context.inputs, context.outputs = hidden.shape[-1], outputs
        return hidden @ torch.empty(hidden.shape[-1], outputs, dtype=hidden.dtype, device=META)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        weight = torch.empty(context.outputs, context.inputs, dtype=gradient.dtype, device=META)
        return gradient @ weight, None


class _FourBitLinear(nn.Linear):
    """A frozen layer whose weights take as many bytes as in NF4 with double quantisation."""

    def __init__(self, dense: nn.Linear) -> None:
        super().__init__(dense.in_features, dense.out_features, bias=dense.bias is not None, device=META)
        packed = torch.empty(round(dense.weight.numel() * NF4_BITS / 8), dtype=torch.uint8, device=META)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = dense.bias

    def forward(self, hidden: Tensor) -> Tensor:
        out: Tensor = _Dequantised.apply(hidden, self.out_features)  # type: ignore[no-untyped-call]
        return out if self.bias is None else out + self.bias
