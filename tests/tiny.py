"""Small configurations shaped like the released sizes, in which no two sizes are equal by accident."""

import copy
import json
from pathlib import Path

from tools import random_checkpoint

SPECIAL = {"pad_token_id": 256, "bos_token_id": 257, "eos_token_id": 258, "audio_token_index": 259,
           "audio_start_token_id": 260, "audio_end_token_id": 261, "vision_start_token_id": 262,
           "vision_end_token_id": 263, "image_token_index": 264, "video_token_index": 265}


def _config(text: dict, audio: dict, vision: dict) -> dict:
    D = text["hidden_size"]
    return {
        "architectures": ["Qwen2_5OmniForConditionalGeneration"], "model_type": "qwen2_5_omni",
        "enable_audio_output": False,
        "thinker_config": {
            "model_type": "qwen2_5_omni_thinker", **SPECIAL, "position_id_per_seconds": 25, "seconds_per_chunk": 2,
            "tie_word_embeddings": False,
            "audio_config": {"model_type": "qwen2_5_omni_audio_encoder", "activation_function": "gelu", "n_window": 100,
                             "max_source_positions": 300, "num_mel_bins": 128, "output_dim": D, **audio},
            "vision_config": {"model_type": "qwen2_5_omni_vision_encoder", "out_hidden_size": D, "patch_size": 14,
                              "spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3, "window_size": 112,
                              "hidden_act": "silu", **vision},
            "text_config": {"model_type": "qwen2_5_omni_text", "hidden_act": "silu", "max_position_embeddings": 32768,
                            "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "use_sliding_window": False, **text},
        },
    }


CONFIGS = {
    # Six query heads on two kv heads, three unequal rotary sections, heads that no power of two divides.
    "7b": _config(
        {"vocab_size": 487, "hidden_size": 120, "intermediate_size": 152, "num_hidden_layers": 3,
         "num_attention_heads": 6, "num_key_value_heads": 2, "rope_theta": 1000000.0,
         "rope_scaling": {"mrope_section": [2, 5, 3], "rope_type": "default", "type": "default"}},
        {"d_model": 48, "encoder_layers": 5, "encoder_attention_heads": 8, "encoder_ffn_dim": 88},
        {"depth": 4, "hidden_size": 108, "num_heads": 9, "intermediate_size": 100, "fullatt_block_indexes": [1, 3]}),
    # Eight query heads on one, the newer spelling of the rotary settings, other depths.
    "3b": _config(
        {"vocab_size": 643, "hidden_size": 96, "intermediate_size": 200, "num_hidden_layers": 4,
         "num_attention_heads": 8, "num_key_value_heads": 1,
         "rope_parameters": {"mrope_section": [1, 2, 3], "rope_type": "default", "rope_theta": 1000000.0}},
        {"d_model": 50, "encoder_layers": 3, "encoder_attention_heads": 5, "encoder_ffn_dim": 136},
        {"depth": 6, "hidden_size": 112, "num_heads": 7, "intermediate_size": 148, "fullatt_block_indexes": [0, 3]}),
}
# The speaking halves. Codes up to num_embeds are sounds, those between them and the marks neither; the query width is
# not the hidden size, and one Talker gives its rotary widths no section, as the 3B's.
TALKERS = {
    "7b": {"vocab_size": 331, "embedding_size": 120, "hidden_size": 56, "intermediate_size": 136,
           "num_hidden_layers": 5, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 16,
           "rope_theta": 1000000.0, "tts_codec_pad_token_id": 311, "tts_codec_start_token_id": 313,
           "tts_codec_end_token_id": 314, "tts_codec_mask_token_id": 320,
           "rope_scaling": {"mrope_section": [2, 5, 1], "rope_type": "default", "type": "default"}},
    "3b": {"vocab_size": 395, "embedding_size": 96, "hidden_size": 72, "intermediate_size": 116,
           "num_hidden_layers": 2, "num_attention_heads": 7, "num_key_value_heads": 1, "head_dim": 12,
           "rope_theta": 1000000.0, "tts_codec_pad_token_id": 371, "tts_codec_start_token_id": 373,
           "tts_codec_end_token_id": 374, "tts_codec_mask_token_id": 380,
           "rope_scaling": {"mrope_section": [2, 4, 0], "rope_type": "default", "type": "default"}},
}
# The releases' head counts, for meshes.
for _kind, (_heads, _kv, _sections) in {"7b": (12, 4, [2, 4, 4]), "3b": (14, 2, [5, 3, 0])}.items():
    TALKERS[f"{_kind}-heads"] = {
        **TALKERS[_kind], "embedding_size": 224 if _kind == "7b" else 128, "num_hidden_layers": 2,
        "num_attention_heads": _heads, "num_key_value_heads": _kv, "head_dim": 2 * sum(_sections),
        "rope_scaling": {"mrope_section": _sections, "rope_type": "default", "type": "default"}}
# No two sizes of Token2Wav are equal by accident; the query width (3 x 10) is not the hidden size; Res2Net has a chain
# of groups. What a voice is made of (192 numbers, 80 mel bins) is the releases'.
TOKEN2WAVS = {
    kind: {
        "dit_config": {
            "hidden_size": 48, "num_hidden_layers": 6, "num_attention_heads": 3, "head_dim": 10, "ff_mult": 3,
            "emb_dim": 20, "block_size": 24, "look_ahead_layers": [3], "look_backward_layers": [0, 4], "repeats": 2,
            "num_embeds": sounds, "mel_dim": 80, "dropout": 0.1, "max_position_embeddings": 32768,
            "rope_theta": 10000.0, "enc_emb_dim": 192, "enc_dim": 13, "enc_channels": [12, 12, 12, 12, 36],
            "enc_kernel_sizes": [5, 3, 3, 3, 1], "enc_dilations": [1, 2, 3, 4, 1], "enc_attention_channels": 7,
            "enc_res2net_scale": 3, "enc_se_channels": 9},
        "bigvgan_config": {
            "mel_dim": 80, "upsample_initial_channel": 64, "resblock_kernel_sizes": [3, 7],
            "resblock_dilation_sizes": [[1, 3, 5], [1, 2, 4]], "upsample_rates": [5, 3, 2],
            "upsample_kernel_sizes": [11, 7, 4]},
    } for kind, sounds in {"7b": 300, "3b": 350, "7b-heads": 300, "3b-heads": 350}.items()}  # fmt: skip
for _kind, _talker in TALKERS.items():
    _talker |= {"model_type": "qwen2_5_omni_talker", "hidden_act": "silu", "max_position_embeddings": 32768,
                "rms_norm_eps": 1e-6, "tts_text_pad_token_id": 266, "tts_text_start_token_id": 267,
                "tts_text_end_token_id": 268,
                **{name: id_ for name, id_ in SPECIAL.items() if name not in ("pad_token_id", "bos_token_id",
                                                                             "eos_token_id")}}
# The releases' own head counts (and an MLP of the vision tower that eight does not divide), for meshes.
for _size, _text in {"7b": (28, 4, 224), "3b": (16, 2, 128)}.items():
    CONFIGS[f"{_size}-heads"] = _config(
        {"vocab_size": 488, "hidden_size": _text[2], "intermediate_size": 152, "num_hidden_layers": 2,
         "num_attention_heads": _text[0], "num_key_value_heads": _text[1], "rope_theta": 1000000.0,
         "rope_scaling": {"mrope_section": [1, 2, 1], "rope_type": "default", "type": "default"}},
        {"d_model": 80, "encoder_layers": 2, "encoder_attention_heads": 20, "encoder_ffn_dim": 96},
        {"depth": 2, "hidden_size": 64, "num_heads": 16, "intermediate_size": 60, "fullatt_block_indexes": [1]})


def config(kind: str, speech: bool = False) -> dict:
    """config.json of a small configuration, with the speaking half if asked for."""
    spoken = {"enable_audio_output": True, "talker_config": TALKERS[kind], "token2wav_config": TOKEN2WAVS[kind]}
    return copy.deepcopy({**CONFIGS[kind], **(spoken if speech else {})})


def write_checkpoint(directory: Path, kind: str = "7b", speech: bool = False, **options: object) -> Path:
    """A random checkpoint of a small configuration in Hugging Face layout, with the speaking half if asked for."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    source = directory.parent / f"{directory.name}.config.json"
    source.write_text(json.dumps(config(kind, speech)))
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    random_checkpoint.main([str(source), str(directory), *flags])
    return directory
