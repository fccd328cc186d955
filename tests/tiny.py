"""Small configurations shaped like the released sizes, in which no two sizes are equal by accident."""

import copy
import json
import subprocess
import sys
from pathlib import Path

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
# The releases' own head counts (and an MLP of the vision tower that eight does not divide), for meshes.
for _size, _text in {"7b": (28, 4, 224), "3b": (16, 2, 128)}.items():
    CONFIGS[f"{_size}-heads"] = _config(
        {"vocab_size": 488, "hidden_size": _text[2], "intermediate_size": 152, "num_hidden_layers": 2,
         "num_attention_heads": _text[0], "num_key_value_heads": _text[1], "rope_theta": 1000000.0,
         "rope_scaling": {"mrope_section": [1, 2, 1], "rope_type": "default", "type": "default"}},
        {"d_model": 80, "encoder_layers": 2, "encoder_attention_heads": 20, "encoder_ffn_dim": 96},
        {"depth": 2, "hidden_size": 64, "num_heads": 16, "intermediate_size": 60, "fullatt_block_indexes": [1]})


def config(kind: str) -> dict:
    return copy.deepcopy(CONFIGS[kind])


def write_checkpoint(directory: Path, kind: str = "7b", **options: object) -> Path:
    """A random checkpoint of a small configuration in Hugging Face layout."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    source = directory.parent / f"{directory.name}.config.json"
    source.write_text(json.dumps(config(kind)))
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    subprocess.run([sys.executable, "-m", "tools.random_checkpoint", str(source), str(directory), *flags], check=True,
                   capture_output=True)
    return directory
