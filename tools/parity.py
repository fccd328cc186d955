"""Holds a checkpoint's answers against the PyTorch reference, part by part and end to end, in float32.

    python -m tools.parity CHECKPOINT                 # a table
    python -m tools.parity CHECKPOINT --json          # the same for machines

Errors are max|ours - theirs| / max|theirs|. The reference is transformers' Qwen2_5OmniForConditionalGeneration; it
gets the same tokens, mel frames and pixels, so that what is compared is the networks (the processors are compared by
the tests). Needs the packages of requirements-test.txt.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

import omni_jax
from omni_jax import OmniError
from omni_jax.config import OmniConfig
from omni_jax.data.batch import Prompt, collate
from omni_jax.inference import generate
from omni_jax.inference.sampling import Sampling
from omni_jax.models.vision_encoder import normalize_pixels
from omni_jax.weights import is_store
from tools import _cli, _speech_parity

SAMPLES = Path(omni_jax.__file__).parent / "assets" / "samples"
GREEDY_TOKENS = 64
FAR_OUT = 30_000  # rotary angles are the harder to get right the further out
PART, END_TO_END = 1e-5, 1e-4


@dataclasses.dataclass(frozen=True)
class Case:
    """Conversations that are run as one batch."""

    name: str
    conversations: tuple
    use_audio_in_video: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison: error against the tolerance it must stay within (0: must be equal)."""

    case: str
    part: str
    error: float
    tolerance: float

    @property
    def passes(self) -> bool:
        return self.error <= self.tolerance


def cases() -> Iterator[Case]:
    """Every modality, alone and together; pictures and sounds are small, so that large checkpoints are bearable."""
    rng = np.random.default_rng(0)
    noise = lambda *shape: rng.integers(0, 256, shape, dtype=np.uint8)
    text = lambda content: {"type": "text", "text": content}
    image = lambda *size: {"type": "image", "image": noise(*size, 3)}
    speech = {"type": "audio", "audio": str(SAMPLES / "speech.flac")}
    stereo = {"type": "audio", "audio": rng.normal(0, 0.1, (2, 44100 * 3 + 123)).astype(np.float32),
              "sampling_rate": 44100}
    video = {"type": "video", "video": str(SAMPLES / "video.mp4"), "fps": 3, "min_pixels": 16 * 784,
             "max_pixels": 30 * 784}
    ask = lambda *content: [{"role": "user", "content": list(content)}]
    yield Case("text", (ask(text("What is the time in Lima when it is noon in Oslo?")),))
    yield Case("one picture of odd size", (ask(image(61, 187), text("Describe it.")),))
    yield Case("three pictures", (ask(image(90, 33), text("and"), image(200, 301), image(1, 1), text("differ?")),))
    yield Case("speech", (ask(speech, text("What does he say?")),))
    yield Case("stereo sound of 44.1 kHz", (ask(text("Hear:"), stereo),))
    yield Case("video", (ask(video, text("What happens?")),))
    yield Case("video with sound", (ask(video, text("What happens, and how does it sound to you?")),), True)
    turns = [*ask(image(75, 140), text("Who?")), {"role": "assistant", "content": "Nobody at all."},
             *ask(speech, text("And here?"))]
    yield Case("several turns", (turns,))
    system = [{"role": "system", "content": "Be brief."}]
    yield Case("a batch of unequal rows", (ask(text("Hi.")), system + turns, ask(video, stereo, text("Well?"))))


def check(directory: str | Path) -> None:
    """Raises OmniError if the reference cannot read this directory, or is not installed."""
    if is_store(directory):
        raise OmniError(f"{directory}: is a converted checkpoint, which the reference cannot read; convert it back to "
                        "Hugging Face layout first with tools.convert")
    try:
        import torch  # noqa: F401
        from transformers import Qwen2_5OmniThinkerForConditionalGeneration  # noqa: F401
    except ImportError as error:
        raise OmniError(f"the PyTorch reference is not installed ({error}); run "
                        "pip install -r requirements-test.txt") from None


def reference_model(directory: str | Path) -> Any:
    """transformers' model of a checkpoint in float32, with its Talker mended; of a Thinker alone, only that."""
    import torch
    from transformers import Qwen2_5OmniForConditionalGeneration, Qwen2_5OmniThinkerForConditionalGeneration

    torch.set_grad_enabled(False)
    speaks = OmniConfig.load(directory).talker_config is not None
    kind = Qwen2_5OmniForConditionalGeneration if speaks else Qwen2_5OmniThinkerForConditionalGeneration
    model = kind.from_pretrained(directory, dtype=torch.float32).eval()
    if speaks:
        _speech_parity.restore_mask(model)
    return model


def reference_inputs(config: Any, prompts: list[Prompt], use_audio_in_video: bool) -> dict[str, Any]:
    """What the reference's processor would give for these prompts, rows padded on the left."""
    import torch

    width = max(len(prompt.token_ids) for prompt in prompts)
    left = lambda row, fill: [fill] * (width - len(row)) + list(row)
    inputs = {"input_ids": torch.tensor([left(p.token_ids.tolist(), config.pad_token_id) for p in prompts]),
              "attention_mask": torch.tensor([left([1] * len(p.token_ids), 0) for p in prompts])}
    clips = [clip.mel for prompt in prompts for clip in prompt.clips]
    if clips:
        longest = max(map(len, clips))
        mel = np.stack([np.pad(clip, ((0, longest - len(clip)), (0, 0))) for clip in clips])
        inputs["input_features"] = torch.tensor(mel).transpose(1, 2)
        inputs["feature_attention_mask"] = torch.tensor(np.arange(longest) < np.array([[len(c)] for c in clips])).long()
    for kind, token in (("image", config.image_token_index), ("video", config.video_token_index)):
        chosen = [(pixels(picture), picture) for prompt in prompts for picture in prompt.pictures
                  if prompt.token_ids[picture.positions[0]] == token]
        if chosen:
            merge = config.vision_config.spatial_merge_size
            inputs["pixel_values" + ("_videos" if kind == "video" else "")] = torch.tensor(
                np.concatenate([values for values, _ in chosen]))
            inputs[f"{kind}_grid_thw"] = torch.tensor([[f, merge * r, merge * c] for _, p in chosen
                                                       for f, r, c in [p.grid]])
        if chosen and kind == "video":
            inputs["video_second_per_grid"] = torch.tensor([picture.seconds_per_grid for _, picture in chosen])
            inputs["use_audio_in_video"] = use_audio_in_video
    return inputs


def pixels(picture: Any) -> np.ndarray:
    """float32 [patches, values]: normalised patches in the reference's order."""
    patches = picture.patches
    return np.asarray(normalize_pixels(patches)).reshape(-1, patches.shape[-1])


def relative(ours: Any, theirs: Any) -> float:
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape or not ours.size:
        return float("inf")
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30))


def compare(omni: Any, reference: Any, case: Case) -> Iterator[Row]:
    """The rows of one case."""
    prompts = [omni.prompt(conversation, case.use_audio_in_video) for conversation in case.conversations]
    inputs = reference_inputs(omni.config.thinker_config, prompts, case.use_audio_in_video)
    thinker = getattr(reference, "thinker", reference)
    spoken = _speech_parity.compare(omni, reference, prompts, inputs, relative, PART, END_TO_END)
    for part, error, tolerance in (*_encoders(omni, thinker, prompts, inputs), *_decoder(omni, thinker, prompts),
                                   *_logits(omni, thinker, prompts, inputs), *_greedy(omni, thinker, prompts, inputs),
                                   *(spoken if hasattr(reference, "talker") else ())):
        yield Row(case.name, part, error, tolerance)


def _encoders(omni, reference, prompts, inputs) -> Iterator[tuple[str, float, float]]:
    """The towers alone, read off the places of the prompt where their vectors were put."""
    import torch

    config = omni.config.thinker_config
    batch = collate(prompts, omni.config)
    embeddings = np.asarray(generate.embed(omni.network, batch))
    at = lambda token: np.concatenate([embeddings[b, : len(p.token_ids)][p.token_ids == token]
                                       for b, p in enumerate(prompts)])
    if "input_features" in inputs:
        theirs = reference.get_audio_features(inputs["input_features"], inputs["feature_attention_mask"])
        yield "audio tower", relative(at(config.audio_token_index), theirs.last_hidden_state), PART
    for kind, token in (("image", config.image_token_index), ("video", config.video_token_index)):
        values = inputs.get("pixel_values" + ("_videos" if kind == "video" else ""))
        if values is not None:
            theirs = getattr(reference, f"get_{kind}_features")(values, inputs[f"{kind}_grid_thw"]).pooler_output
            yield f"vision tower ({kind})", relative(at(token), torch.cat(tuple(theirs))), PART


def _decoder(omni, reference, prompts) -> Iterator[tuple[str, float, float]]:
    """The decoder alone: the same embeddings and positions into both, row by row; then as deep in a long prompt."""
    for part, start in (("decoder", 0), (f"decoder, positions from {FAR_OUT:,}", FAR_OUT)):
        yield part, max(_hidden(omni, reference, prompt, start) for prompt in prompts), PART


def _hidden(omni, reference, prompt, start: int) -> float:
    import torch

    T = len(prompt.token_ids)
    batch = collate([prompt], omni.config)
    embeddings = generate.embed(omni.network, batch)
    ids, _ = generate.positions(omni.network, batch, start)
    theirs = reference.model.language_model(
        inputs_embeds=torch.tensor(np.asarray(embeddings)[:, :T]),
        position_ids=torch.tensor(np.asarray(ids)[:, :, :T]).long(), use_cache=False).last_hidden_state
    chunks: list[np.ndarray] = []
    generate.read(omni.network, batch, lambda _, hidden: chunks.append(np.asarray(hidden)), start)
    return relative(np.concatenate(chunks, axis=1)[:, :T], theirs)


def _logits(omni, reference, prompts, inputs) -> Iterator[tuple[str, float, float]]:
    theirs = reference(**inputs).logits.numpy()
    worst = max(relative(omni.prompt_logits(prompt), theirs[b, -len(prompt.token_ids):])
                for b, prompt in enumerate(prompts))
    yield "prompt logits", worst, END_TO_END


def _greedy(omni, reference, prompts, inputs) -> Iterator[tuple[str, float, float]]:
    """Tokens and logits of a greedy reply that nothing ends."""
    theirs = reference.generate(**inputs, max_new_tokens=GREEDY_TOKENS, do_sample=False, repetition_penalty=1.0,
                                eos_token_id=None, output_logits=True, return_dict_in_generate=True)
    network = dataclasses.replace(omni.network, ends=())
    session = generate.begin(network, collate(prompts, omni.config), Sampling(),
                             np.full(len(prompts), GREEDY_TOKENS, np.int32), np.zeros(len(prompts), np.uint32))
    scores = [np.asarray(session.state.logits)]
    for count in range(2, GREEDY_TOKENS + 1):
        generate.advance(network, session, count)
        scores.append(np.asarray(session.state.logits))
    their_tokens = theirs.sequences[:, -GREEDY_TOKENS:].tolist()
    session.handed_out = GREEDY_TOKENS
    ours = session.replies(())
    unequal = sum(a != b for row, their_row in zip(ours, their_tokens, strict=True)
                  for a, b in zip(row, their_row, strict=True))
    yield f"{GREEDY_TOKENS} greedy tokens that differ", float(unequal), 0.0
    yield "their logits", max(relative(a, b.numpy()) for a, b in zip(scores, theirs.logits, strict=True)), END_TO_END
    yield "share of repeated tokens", 1 - max(len(set(row)) for row in ours) / GREEDY_TOKENS, 0.7


def main(argv: list[str] | None = None) -> None:
    parser = _cli.parser(__doc__)
    parser.add_argument("checkpoint", help="a Hugging Face directory")
    arguments = parser.parse_args(argv)
    check(arguments.checkpoint)
    # By default TPUs multiply float32 in one bfloat16 pass and newer GPUs in one TF32 pass: far over any bar below.
    jax.config.update("jax_default_matmul_precision", "highest")
    omni = omni_jax.load(arguments.checkpoint, mesh="", dtype="float32")
    reference = reference_model(arguments.checkpoint)
    rows: list[Row] = []
    for case in cases():
        for row in compare(omni, reference, case):
            rows.append(row)
            if not arguments.json:
                print(f"{row.case:26} {row.part:30} {row.error:8.1e}  bar {row.tolerance:5.0e}  "
                      f"{'ok' if row.passes else 'OVER'}", flush=True)
    if arguments.json:
        _cli.show({"rows": [{**dataclasses.asdict(row), "passes": row.passes} for row in rows]}, as_json=True)
    over = [row for row in rows if not row.passes]
    if over:
        raise OmniError(f"{len(over)} of {len(rows)} comparisons are over their bar, first {over[0]}")


if __name__ == "__main__":
    _cli.run(main)
