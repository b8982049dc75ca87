"""Quantises to int4 while a checkpoint is read: each layer as its weights arrive, which are then freed.

So a model of 4 billion parameters is never in memory as a whole, neither in fp32 nor in bf16.
"""

import contextlib
import ctypes
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.core_model_loading import ConversionOps
from transformers.quantizers import HfQuantizer
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from emx_worker.model.int4.quantisation import Int4Linear, halve_tower, stays_bf16, to_int4

if TYPE_CHECKING:
    from emx_worker.model.adapter_merging import AdapterMerge

METHOD = "emx-int4"


@register_quantization_config(METHOD)
class Int4Config(QuantizationConfigMixin):
    """Makes ``from_pretrained`` load the decoder's layers as ``Int4Linear``, the rest in fp32 unless too large."""

    def __init__(self, merge: "AdapterMerge | None" = None, **_: Any) -> None:
        """Configure the quantisation. ``merge``: an adapter to merge into the weights before quantising them."""
        self.quant_method = METHOD
        self.merge = merge


@register_quantizer(METHOD)
class Int4Quantizer(HfQuantizer):
    """Answers what transformers asks while it reads a checkpoint."""

    requires_calibration = False

    def _process_model_before_weight_loading(self, model: Any, **_: Any) -> None:
        to_int4(model.model.language_model)
        halve_tower(model)
        if self.pre_quantized:
            return
        for module in model.modules():
            if isinstance(module, Int4Linear):
                # transformers looks for the checkpoint's weights under this name.
                module.weight = nn.Parameter(
                    torch.empty(module.out_features, module.in_features, device="meta"), requires_grad=False
                )

    def param_needs_quantization(self, model: Any, param_name: str, **__: Any) -> bool:
        """Tell whether a weight is changed on its way into the model."""
        merge = self.quantization_config.merge
        merged = merge is not None and merge.changes(param_name)
        return merged or not stays_bf16(model, param_name, model.get_parameter(param_name))

    def get_new_dtype(self, converter: Any, param: Tensor, dtype: torch.dtype | None) -> torch.dtype:
        """Keep the dtype of weights that were quantised before."""
        return param.dtype

    def get_quantize_ops(self) -> ConversionOps:
        """Return the conversion of a checkpoint's weights."""
        return _Int4Conversion(self.quantization_config.merge)

    def is_serializable(self) -> bool:
        """Say no: transformers can't save these weights."""
        return False

    @property
    def is_trainable(self) -> bool:
        """Say no: int4 weights have no gradients."""
        return False


class _Int4Conversion(ConversionOps):
    def __init__(self, merge: "AdapterMerge | None") -> None:
        self._merge = merge

    def convert(
        self,
        input_dict: dict[str, list[Tensor]],
        *,
        model: Any,
        full_layer_name: str,
        missing_keys: set[str],
        **_: Any,
    ) -> dict[str, Tensor]:
        """Fill an int4 layer, so that transformers has nothing left to set; else return the weights in fp32."""
        ((weight,),) = input_dict.values()
        if self._merge is not None:
            weight = self._merge.merged(full_layer_name, weight)
        path = full_layer_name.rpartition(".")[0]
        layer: Any = model.get_submodule(path)
        if type(layer) is not Int4Linear:
            kept = stays_bf16(model, full_layer_name, weight)
            return {full_layer_name: weight.bfloat16() if kept else weight.float()}
        layer.fill(weight)
        del layer.weight, weight
        input_dict.clear()
        return_freed_memory()
        layer._is_hf_initialized = True
        missing_keys.difference_update(f"{path}.{name}" for name in ("weight", "packed", "scales_and_zeros"))
        return {}


def return_freed_memory() -> None:
    """Return freed memory to the system; glibc would keep a gigabyte of gaps between the layers."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
