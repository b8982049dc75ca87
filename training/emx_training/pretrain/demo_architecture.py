"""The demo model's shape: Gemma 3 with a SigLIP tower, a few million parameters.

``python -m emx_training.pretrain.demo_architecture OUT_DIR`` writes it with random weights, as a checkpoint that
transformers can load.
"""

import argparse
import copy
from pathlib import Path

import torch
from torch import nn
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    Gemma3TextConfig,
    GenerationConfig,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

from emx_training.pretrain.tokenizer import FIRST_LOC, PROMPT, SPECIAL_TOKENS, VOCABULARY_SIZE, build_tokenizer
from emx_worker.model.architectures import Model, Processor
from emx_worker.model.checkpoint import ModelSpec, write_checkpoint

_CHAT_TEMPLATE = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8").rstrip("\n")
_ID = {token: rank for rank, token in enumerate(SPECIAL_TOKENS)}


def phantom_model_spec(name: str, revision: str) -> ModelSpec:
    """Return the emx.json of a model that knows only phantoms. Its reports have at most 256 tokens."""
    return ModelSpec(name=name, revision=revision, dialect="loc", demo=True, prompt=PROMPT, max_new_tokens=256)


def demo_config() -> Gemma3Config:
    """Return the demo model's shape: 160 px in patches of 10, 64 image tokens, 4 M parameters.

    The input width of every linear layer is a multiple of 64, the group size of torch's int4 kernels.
    """
    return _config(image=160, patch=10, image_tokens=64, width=192, mlp=512, heads=3, vision_layers=5, layers=4)


def tiny_config() -> Gemma3Config:
    """Return the same architecture at its smallest, for tests: 32 px, 4 image tokens."""
    return _config(image=32, patch=8, image_tokens=4, width=64, mlp=64, heads=1, vision_layers=2, layers=2)


def build_processor(config: Gemma3Config, tokenizer: PreTrainedTokenizerFast | None = None) -> Gemma3Processor:
    """Return Gemma 3's processor for models of this shape.

    Grey images become 3 equal channels, float32 from -1 to 1.
    """
    side = config.vision_config.image_size
    images = Gemma3ImageProcessorPil(
        size={"height": side, "width": side}, image_mean=[0.5] * 3, image_std=[0.5] * 3, do_convert_rgb=True
    )
    return Gemma3Processor(
        image_processor=images,
        tokenizer=tokenizer or build_tokenizer(),
        chat_template=_CHAT_TEMPLATE,
        image_seq_length=config.mm_tokens_per_image,
    )


def random_model(seed: int, config: Gemma3Config | None = None) -> Gemma3ForConditionalGeneration:
    """Return a model in fp32 with weights drawn from the seed. torch's global generator stays unchanged."""
    config = config or demo_config()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Gemma3ForConditionalGeneration(config)
        # transformers leaves the projector at zero, which would disconnect the vision tower.
        projection = model.model.multi_modal_projector.mm_input_projection_weight
        nn.init.normal_(projection, std=config.vision_config.hidden_size**-0.5)
        _order_patches(model.model.vision_tower.embeddings.position_embedding.weight)
        _order_locations(model.get_input_embeddings().weight)
    model.generation_config = generation_config()
    return model.eval()


def generation_config() -> GenerationConfig:
    """Return the settings of greedy decoding until the turn ends."""
    return GenerationConfig(
        bos_token_id=_ID["<bos>"],
        eos_token_id=_ID["<end_of_turn>"],
        pad_token_id=_ID["<pad>"],
        do_sample=False,
    )


def control_tokens() -> dict[str, int]:
    """Return the ids of the tokenizer's control tokens, by ``Gemma3Config``'s names."""
    return {
        "boi_token_index": _ID["<start_of_image>"],
        "eoi_token_index": _ID["<end_of_image>"],
        "image_token_index": _ID["<image_soft_token>"],
        "pad_token_id": _ID["<pad>"],
        "bos_token_id": _ID["<bos>"],
        "eos_token_id": _ID["<end_of_turn>"],
    }


def save_checkpoint(model: Model, processor: Processor, spec: ModelSpec, folder: Path) -> None:
    """Write a checkpoint that transformers can load, with weights in bf16, and its ``emx.json``."""
    write_checkpoint(copy.deepcopy(model).to(torch.bfloat16), processor, spec, folder)


def _config(
    *,
    image: int,
    patch: int,
    image_tokens: int,
    width: int,
    mlp: int,
    heads: int,
    vision_layers: int,
    layers: int,
) -> Gemma3Config:
    vision = SiglipVisionConfig(
        image_size=image,
        patch_size=patch,
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=vision_layers,
        num_attention_heads=heads,
        vision_use_head=False,
    )
    text = Gemma3TextConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=1,
        head_dim=64,
        query_pre_attn_scalar=64,
        max_position_embeddings=1024,
        sliding_window=512,
        # Gemma 3 has a full layer after every five sliding ones; a shallow model has both if its last one is full.
        layer_types=["sliding_attention"] * (layers - 1) + ["full_attention"],
        pad_token_id=_ID["<pad>"],
        eos_token_id=_ID["<eos>"],
        bos_token_id=_ID["<bos>"],
    )
    return Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=image_tokens,
        **control_tokens(),
    )


@torch.no_grad()
def _order_patches(positions: torch.Tensor) -> None:
    """Initialise the vision tower's positions, (patches, width), with sines and cosines of row and column.

    Attention can then tell near from far at once (Vaswani et al. 2017; in two dimensions, He et al. 2022).
    """
    patches, width = positions.shape
    side = round(patches**0.5)
    place = torch.arange(side) / side
    frequency = torch.pi * 2 ** torch.linspace(0, 3, width // 4)
    angle = place[:, None] * frequency
    axis = torch.cat([angle.sin(), angle.cos()], dim=1)
    rows, columns = axis[:, None].expand(-1, side, -1), axis[None].expand(side, -1, -1)
    positions.copy_(torch.cat([rows, columns], dim=2).reshape(patches, width))


@torch.no_grad()
def _order_locations(embedding: torch.Tensor) -> None:
    """Initialise the location rows with Fourier features of their bin, so that neighbours start alike."""
    rows = embedding[FIRST_LOC:VOCABULARY_SIZE]
    bins, width = rows.shape
    place = torch.arange(bins) / bins
    frequency = 0.5 * 2 ** torch.linspace(0, 6, width // 2)
    angle = 2 * torch.pi * place[:, None] * frequency
    # Low frequencies have the most weight, as in a smooth function's spectrum.
    features = torch.cat([angle.sin(), angle.cos()], dim=1) / frequency.sqrt().repeat(2)
    rows.copy_(features * (embedding[:FIRST_LOC].std() / features.std()))


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="OUT_DIR", help="folder to write the checkpoint to")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    parser.add_argument("--tiny", action="store_true", help="use the smallest shape, for tests")
    options = parser.parse_args()
    config = tiny_config() if options.tiny else demo_config()
    spec = phantom_model_spec("explainmyxray-random", f"seed-{options.seed}")
    save_checkpoint(random_model(options.seed, config), build_processor(config), spec, options.folder)


if __name__ == "__main__":
    main()
