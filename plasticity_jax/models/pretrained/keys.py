"""The keys of a Hugging Face config.json: which are read, which must be off, which change nothing.

From the configurations, and the code that reads them, of T5 and ResNet in transformers 5.23, and
from what versions 3 and 4 wrote. A key on none of these lists is refused, since nobody here knows
what the network computes with it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Layout(NamedTuple):
    """What the config.json of one kind of model says.

    Attributes:
      kind: its model_type.
      classes: the classes in `architectures` that compute with the tensors as here; the first
        writes all of them.
      read: {key: (type, what transformers takes where it is absent)}, None for a key that then
        follows from others.
      nullable: keys for which null is the same as to be absent; it is no value of the others.
      without_effect: keys that change nothing in what a run computes, beside those of every kind.
    """

    kind: str
    classes: tuple[str, ...]
    read: Mapping[str, tuple[type, Any]]
    nullable: frozenset[str]
    without_effect: frozenset[str]


OFF = ("auto_map", "per_layer_config", "pruned_heads", "quantization_config", "tie_encoder_decoder")
"""Keys that change the function or the tensors of any model, allowed only where they are empty,
false or null: code of one's own, layers that differ, heads that were cut off, weights in few bits,
  a decoder that shares the encoder's weights.
"""

T5 = Layout(
    kind="t5",
    classes=("T5ForConditionalGeneration", "T5WithLMHeadModel", "T5Model"),
    read={
        "d_model": (int, 512),
        "num_heads": (int, 8),
        "d_kv": (int, 64),
        "d_ff": (int, 2048),
        "num_layers": (int, 6),
        "num_decoder_layers": (int, None),  # as many as the encoder
        "vocab_size": (int, 32128),
        "feed_forward_proj": (str, "relu"),
        "dense_act_fn": (str, None),  # what feed_forward_proj says, as the next
        "is_gated_act": (bool, None),
        "layer_norm_epsilon": (float, 1e-6),
        "relative_attention_num_buckets": (int, 32),
        "relative_attention_max_distance": (int, 128),
        "tie_word_embeddings": (bool, True),
        "scale_decoder_outputs": (bool, None),  # as tie_word_embeddings
        "pad_token_id": (int, 0),
        "eos_token_id": (int, 1),
        "decoder_start_token_id": (int, None),  # texts begin with padding
        "is_encoder_decoder": (bool, True),
    },
    nullable=frozenset({"num_decoder_layers", "decoder_start_token_id"}),
    without_effect=frozenset(
        {
            "classifier_dropout",  # of another head
            "dropout_rate",  # there is none here, see `t5.T5`
            "gradient_checkpointing",  # memory only
            "initializer_factor",  # of weights that are drawn
            "is_decoder",  # each side is told its own
            "n_positions",  # of the first versions, which did not read it either
            "output_past",
        }
    ),
)

RESNET = Layout(
    kind="resnet",
    classes=("ResNetForImageClassification", "ResNetModel", "ResNetBackbone"),
    read={
        "num_channels": (int, 3),
        "embedding_size": (int, 64),
        "hidden_sizes": (list, [256, 512, 1024, 2048]),
        "depths": (list, [3, 4, 6, 3]),
        "layer_type": (str, "bottleneck"),
        "hidden_act": (str, "relu"),
        "downsample_in_first_stage": (bool, False),
    },
    nullable=frozenset(),
    without_effect=frozenset(
        {
            "downsample_in_bottleneck",  # of a layer_type that is refused
            "is_decoder",
            "is_encoder_decoder",
            "out_features",  # which streams a backbone gives to others, as the next two
            "out_indices",
            "stage_names",
        }
    ),
)

_WITHOUT_EFFECT = {
    "where the file is from": "_commit_hash _name_or_path name_or_path transformers_version",
    "how values are stored and products computed, here in float32 whatever the file says": (
        "_attn_implementation_autoset attn_implementation chunk_size_feed_forward dtype "
        "torch_dtype torchscript "
        "use_bfloat16"
    ),
    "what a call returns beside logits": (
        "output_attentions output_hidden_states return_dict use_cache"
    ),
    "losses, other heads, fine-tuning": (
        "finetuning_task id2label label2id num_labels problem_type task_specific_params "
        "tf_legacy_loss"
    ),
    "models that are joined from two": "add_cross_attention cross_attention_hidden_size",
    "the tokenizer, and ids that have no meaning to T5": (
        "bos_token_id prefix sep_token_id tokenizer_class"
    ),
    "generation, for which a run has settings of its own": (
        "assistant_confidence_threshold assistant_lookbehind bad_words_ids begin_suppress_tokens "
        "diversity_penalty "
        "do_sample early_stopping encoder_no_repeat_ngram_size encoder_repetition_penalty "
        "epsilon_cutoff eta_cutoff "
        "exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id length_penalty "
        "max_length "
        "min_length no_repeat_ngram_size num_assistant_tokens num_assistant_tokens_schedule "
        "num_beam_groups "
        "num_beams num_return_sequences output_scores remove_invalid_values repetition_penalty "
        "return_dict_in_generate suppress_tokens target_lookbehind temperature top_k top_p "
        "typical_p"
    ),
}
WITHOUT_EFFECT = frozenset(" ".join(_WITHOUT_EFFECT.values()).split())
"""Keys that change nothing in what a run computes, of any kind of model; above, by what they are
about.
"""
