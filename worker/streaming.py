"""int4 while a checkpoint is read: each layer is quantised as its weights arrive, and these are forgotten.

A model of 4 billion parameters so never lies in memory as a whole, neither in fp32 nor in bf16.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.core_model_loading import ConversionOps
from transformers.quantizers import HfQuantizer
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from worker.quantisation import Int4Linear, to_int4

_METHOD = "emx-int4"


@register_quantization_config(_METHOD)
class Int4Config(QuantizationConfigMixin):
    """For ``from_pretrained``: the decoder's layers become ``Int4Linear``."""

    def __init__(self) -> None:
        self.quant_method = _METHOD


@register_quantizer(_METHOD)
class Int4Quantizer(HfQuantizer):
    """What transformers asks while it reads a checkpoint."""

    requires_calibration = False

    def _process_model_before_weight_loading(self, model: Any, **_: Any) -> None:
        to_int4(model.model.language_model)
        for module in model.modules():
            if isinstance(module, Int4Linear):
                # Where the checkpoint's weights are looked for.
                module.weight = nn.Parameter(
                    torch.empty(module.out_features, module.in_features, device="meta"), requires_grad=False
                )

    def param_needs_quantization(self, model: Any, param_name: str, **__: Any) -> bool:
        module, _, name = param_name.rpartition(".")
        return name == "weight" and isinstance(model.get_submodule(module), Int4Linear)

    def get_quantize_ops(self) -> ConversionOps:
        return _Fill()

    def is_serializable(self) -> bool:
        return False

    @property
    def is_trainable(self) -> bool:
        return False


class _Fill(ConversionOps):
    def convert(
        self,
        input_dict: dict[str, list[Tensor]],
        *,
        model: Any,
        full_layer_name: str,
        missing_keys: set[str],
        **_: Any,
    ) -> dict[str, Tensor]:
        """Fill the layer; nothing is left for transformers to set."""
        ((weight,),) = input_dict.values()
        path = full_layer_name.rpartition(".")[0]
        layer: Any = model.get_submodule(path)
        layer.fill(weight)
        del layer.weight
        layer._is_hf_initialized = True
        missing_keys.difference_update(f"{path}.{name}" for name in ("weight", "packed", "scales_and_zeros"))
        return {}
