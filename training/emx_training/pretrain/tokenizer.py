"""The demo model's tokenizer: byte-level BPE trained on the report language, with the 1,024 location tokens."""

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from emx_shared.grammar import LOC_BINS
from emx_training.data.phantom_reports import corpus

PROMPT = "Report this chest radiograph."
"""The demo model's prompt, the only one that it is trained on."""

SPECIAL_TOKENS = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
)
"""Gemma 3's control tokens, in its order; ids 0 to 7."""

FIRST_LOC = 1024
"""Id of <loc0000>. Ids below it that BPE leaves free are <unusedN>, as in Gemma's vocabulary."""

VOCABULARY_SIZE = FIRST_LOC + LOC_BINS


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Train the tokenizer. The corpus is fixed, so the result is always the same.

    The tokenizer can encode any byte, and decodes exactly what it encoded (special tokens apart). Unlike Gemma's,
    it adds no ``<bos>``: the chat template writes it.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=FIRST_LOC,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*corpus(), PROMPT, "\n\nuser\nmodel\n"], trainer)
    spare = range(FIRST_LOC - tokenizer.get_vocab_size())
    tokenizer.add_tokens([AddedToken(f"<unused{n}>", normalized=False) for n in spare])
    tokenizer.add_tokens([AddedToken(f"<loc{n:04d}>", normalized=False) for n in range(LOC_BINS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
        extra_special_tokens={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
    )
