"""The counts of optimised HLO, and small models compiled for chips that are not here."""

import dataclasses
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from configs.stages import with_fields
from omni_jax import sharding
from omni_jax.config import OmniConfig
from omni_jax.errors import OmniError
from omni_jax.models import dit
from omni_jax.speech_config import MelConfig
from tests import tiny
from tools import _chips, _first_audio, _hlo, _phases, _speech_phases, _training, compile_report

LAYERS, WIDTH, SLOTS = 5, 192, 640


def compiled_text(function, *shapes, **options) -> str:
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(function, **options).lower(*arguments).compile().as_text()


def layers(unroll: int):
    """Stacked layers that write a row into a cache each, as a decoder does."""

    def run(x, weights, cache):
        def body(carry, scanned):
            x, cache = carry
            weight, index = scanned
            cache = jax.lax.dynamic_update_slice(cache, x[None, :1], (index, 7, 0))
            return (jnp.tanh(x @ weight), cache), None

        return jax.lax.scan(body, (x, cache), (weights, jnp.arange(LAYERS)), unroll=unroll)[0]

    return compiled_text(run, (WIDTH, WIDTH), (LAYERS, WIDTH, WIDTH), (LAYERS, SLOTS, WIDTH), donate_argnums=2)


def test_a_loop_counts_as_often_as_it_runs():
    scanned, unrolled = _hlo.account(layers(1)), _hlo.account(layers(LAYERS))
    products = 2 * LAYERS * WIDTH**3
    assert scanned.flops == pytest.approx(unrolled.flops, rel=0.02)
    assert products <= scanned.flops < 1.03 * products
    weights = 4 * LAYERS * WIDTH**2
    assert weights < scanned.bytes < 10 * weights  # read by layer, not the whole stack in every turn
    assert scanned.bytes == pytest.approx(unrolled.bytes, rel=0.35)


def test_an_update_in_place_moves_the_update_only():
    text = compiled_text(lambda cache, new: jax.lax.dynamic_update_slice(cache, new, (3, 0)), (4096, 64), (2, 64),
                         donate_argnums=0)
    assert _hlo.account(text).bytes < 4 * 4 * 2 * 64


def test_dots_match_xlas_own_count():
    function = lambda a, b: jnp.einsum("bthd,bshd->bhts", a, b)
    lowered = jax.jit(function).lower(*[jax.ShapeDtypeStruct((3, 32, 4, 24), jnp.float32)] * 2)
    compiled = lowered.compile()
    assert _hlo.account(compiled.as_text()).flops == pytest.approx(compiled.cost_analysis()["flops"], rel=0.05)


HLO = """HloModule sample, is_scheduled=true

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add.1 = f32[] add(%a, %b)
}

%body (state: (s32[], f32[16,100])) -> (s32[], f32[16,100]) {
  %state = (s32[], f32[16,100]{1,0:T(8,128)}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %x = f32[16,100]{1,0:T(8,128)} get-tuple-element(%state), index=1
  %near = f32[16,100]{1,0:T(8,128)S(1)} copy(%x)
  %all-reduce.1 = f32[16,100]{1,0:T(8,128)} all-reduce(%near), replica_groups=GROUPS, to_apply=%sum
  ROOT %tuple.1 = (s32[], f32[16,100]{1,0:T(8,128)}) tuple(%i, %all-reduce.1)
}

%condition (state.1: (s32[], f32[16,100])) -> pred[] {
  %state.1 = (s32[], f32[16,100]{1,0:T(8,128)}) parameter(0)
  %j = s32[] get-tuple-element(%state.1), index=0
  %end = s32[] constant(7)
  ROOT %lt = pred[] compare(%j, %end), direction=LT
}

ENTRY %main (p: f32[16,100]) -> (s32[], f32[16,100]) {
  %p = f32[16,100]{1,0:T(8,128)} parameter(0)
  %zero = s32[] constant(0)
  %tuple.2 = (s32[], f32[16,100]{1,0:T(8,128)}) tuple(%zero, %p)
  ROOT %while.1 = (s32[], f32[16,100]{1,0:T(8,128)}) while(%tuple.2), condition=%condition, body=%body
}
"""


@pytest.mark.parametrize("groups", ["{{0,1,2,3}}", "[2,4]<=[8]", "mesh['a'=2,'b'=4] {'b'}",
                                    "mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}"])
def test_collectives_tiles_and_on_chip_memory(groups):
    cost = _hlo.account(HLO.replace("GROUPS", groups))
    tiled = 4 * 16 * 128  # 100 columns take 128
    assert (cost.collectives, cost.kernels) == (7, 7)
    assert cost.wire == 7 * 2 * 3 / 4 * tiled
    assert cost.bytes == 7 * 2 * tiled  # read by the copy, written by the all-reduce


def test_a_loop_without_a_known_end_counts_once():
    text = compiled_text(lambda x: jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ x, x), (64, 64))
    cost = _hlo.account(text)
    assert cost.loop is not None
    assert cost.loop.flops == pytest.approx(2 * 64**3, rel=0.1)


def test_turns_are_those_of_the_programs_own_loops_in_their_order():
    def run(x):
        x = jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ x, x)
        return jax.lax.while_loop(lambda x: x.sum() < 99, lambda x: x @ x @ x, x)

    text, product = compiled_text(run, (64, 64)), 2 * 64**3
    for turns, products in (((), 3), ((5, 0), 5), ((0, 1), 2), ((1, 3), 7)):
        assert _hlo.account(text, turns=turns).flops == pytest.approx(products * product, rel=0.1)


@pytest.mark.parametrize("kind, product, exact", [
    ("f32", "dot(%p, %q), lhs_contracting_dims={1}, rhs_contracting_dims={0}, operand_precision={highest,highest}", 1),
    ("f32", "dot(%p, %q), lhs_contracting_dims={1}, rhs_contracting_dims={0}", 0),
    ("bf16", "dot(%p, %q), lhs_contracting_dims={1}, rhs_contracting_dims={0}, operand_precision={highest,highest}", 0),
    ("f32", 'custom-call(%p, %q), custom_call_target="__cublas$gemm", backend_config={"gemm_backend_config":'
            '{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]},'
            '"precision_config":{"operand_precision":["HIGHEST","HIGHEST"]}}}', 1)])
def test_exact_products_are_float32_ones_at_the_highest_precision(kind, product, exact):
    cost = _hlo.account(f"""HloModule product

ENTRY %main (p: {kind}[8,24], q: {kind}[24,40]) -> {kind}[8,40] {{
  %p = {kind}[8,24] parameter(0)
  %q = {kind}[24,40] parameter(1)
  ROOT %r = {kind}[8,40] {product}
}}
""")
    assert (cost.flops, cost.exact) == (2 * 8 * 24 * 40, exact * 2 * 8 * 24 * 40)


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("compile") / "config.json"
    path.write_text(json.dumps(tiny.config("7b")))
    return path


def test_products_of_a_prefill_chunk_are_those_of_its_shapes(config_file):
    text = OmniConfig.load(config_file).thinker_config.text_config
    model = _phases.Model.build(OmniConfig.load(config_file),
                                sharding.make_mesh(None, jax.devices()[:1]))
    with jax.set_mesh(model.mesh):
        step = _phases.step(model, "prefill-8k", chunk=64)
        flops = _hlo.account(step.function.lower(*step.args).compile().as_text()).flops
    D, N, K, H = text.hidden_size, text.num_attention_heads, text.num_key_value_heads, text.head_dim
    token = 2 * text.num_hidden_layers * (D * H * (2 * N + 2 * K) + 3 * D * text.intermediate_size + 2 * 8192 * N * H)
    assert 64 * token <= flops < 1.6 * 64 * token  # the rest is softmax over few, narrow heads


@pytest.fixture(scope="module")
def speaking():
    """A model that speaks, on one device."""
    return _phases.Model.build(OmniConfig.from_json(tiny.config("7b", speech=True)),
                               sharding.make_mesh(None, jax.devices()[:1]))


def test_products_of_a_solve_are_those_of_all_evaluations(speaking):
    with jax.set_mesh(speaking.mesh):
        step = _speech_phases.step(speaking, "solve-first")
        cost = _hlo.account(step.function.lower(*step.args).compile().as_text())
    c = speaking.config.token2wav_config.dit_config
    frames, width = 2 * 3 * c.block_size, c.num_attention_heads * c.head_dim  # guided and not, three blocks
    seen = c.block_size * (c.num_hidden_layers + len(c.look_ahead_layers + c.look_backward_layers))
    layers = c.num_hidden_layers * (4 * c.hidden_size * width + 2 * c.ff_mult * c.hidden_size**2) + 2 * seen * width
    products = 2 * dit.EVALUATIONS * frames * (layers + 1.5 * c.mel_dim * c.hidden_size)
    assert products <= cost.exact < 1.1 * products
    assert cost.exact <= cost.flops < 1.6 * products  # the rest is norms and softmax over narrow layers


def test_the_parts_of_the_first_audio_are_what_the_stream_runs(speaking):
    parts = _first_audio.parts(speaking, 1000)
    assert [part.times for part in parts if part.build] == [2, 2, 1, 1, 3, 1, 1]  # 512-token chunks; 36 codes by 12
    lines = [_first_audio.line(part, {"seconds": {"flops": 1.0, "bytes": 2.0, "links": 0.25, "starts": 0.5}}
                               if part.build else {}) for part in parts]
    calls = sum(part.times for part in parts)
    assert sum(line["total"] for line in lines) == pytest.approx(11 * 2.75 + calls * _first_audio.CALL_SECONDS)
    assert _first_audio.table(lines)[-1].split()[-1] == f"{1e3 * sum(line['total'] for line in lines):.2f}"


@pytest.mark.parametrize("target", ["v5e:2x2", "h100"])
def test_time_to_first_audio_adds_up(target, tmp_path):
    _chips.prepare()
    if _chips.missing(target):
        pytest.skip(f"no compiler for {target}; {_chips.INSTALL}")
    (tmp_path / "config.json").write_text(json.dumps(tiny.config("7b-heads", speech=True)))
    command = [sys.executable, "-m", "tools.compile_report", str(tmp_path), "--target", target, "--first-audio", "40",
               "--json"]
    [found] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["first_audio"]
    lines = found["lines"]
    assert found["total"] == pytest.approx(sum(line["total"] for line in lines)) and found["tokens"] == 40
    assert all(line["kernels"] > 0 for line in lines[1:])
    assert any(line["links"] > 0 for line in lines) == (target != "h100")
    assert not any("another sharding" in remark for line in lines for remark in line["remarks"])
    turns = next(line for line in lines if line["what"].startswith("lock-step"))
    assert turns["kernels"] > 36 * lines[2]["kernels"]  # of both networks, in every turn


@pytest.mark.parametrize("target, mesh, phase, attention", [
    ("v5e:2x2", "fsdp=2,model=2", "decode-32k", "XLA"), ("v5e:2x2", "model=4", "prefill-8k", "flash"),
    ("h100", "model=1", "decode-32k", "cuDNN"), ("h100:4", "fsdp=2,model=2", "prefill-8k", "cuDNN")])
def test_a_small_model_compiles_for_a_chip(target, mesh, phase, attention, tmp_path):
    _chips.prepare()
    if _chips.missing(target):
        pytest.skip(f"no compiler for {target}; {_chips.INSTALL}")
    (tmp_path / "config.json").write_text(json.dumps(tiny.config("7b-heads")))
    command = [sys.executable, "-m", "tools.compile_report", str(tmp_path), "--target", target, "--mesh", mesh,
               "--phase", phase, "--json", "--top", "3"]
    [row] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["rows"]
    assert row["compiles"] and row["fits"] and row["cache_in_place"] and row["attention"] == attention
    assert row["temporaries"] < row["cache"] or phase == "prefill-8k"  # whose chunk has more than this small cache
    assert 0 < row["step_ratio"] < 40 and len(row["heaviest"]) == 3
    assert (row["collectives"] > 0) == (target != "h100")
    assert row["seconds"]["total"] >= row["seconds"]["starts"] > 0


SHORT = {"train-8k": {"data.length": 256}, "train-lora": {"data.length": 256},
         "train-talker": {"data.length": 128, "data.speech_length": 256},
         "train-dit": {"speech.clip": 3, "speech.mel": MelConfig(hop=30)}}


def shorten(monkeypatch, phase, **lengths):
    kind = _training.PHASES[phase]
    monkeypatch.setitem(_training.PHASES, phase, dataclasses.replace(kind, run=with_fields(kind.run, lengths)))


@pytest.mark.slow
@pytest.mark.parametrize("target, mesh, phase, remat", [
    ("v5e:2x2", "data=2,fsdp=2", "train-8k", "dots"), ("h100", "", "train-lora", "full"),
    ("v5e:2x2", "fsdp=4", "train-talker", "full"), ("v5e:2x2", "fsdp=4", "train-dit", "dots"),
    ("h100", "", "train-dit", "none")])
def test_a_small_training_step_compiles_for_a_chip(target, mesh, phase, remat, tmp_path, monkeypatch):
    _chips.prepare()
    if _chips.missing(target):
        pytest.skip(f"no compiler for {target}; {_chips.INSTALL}")
    config = OmniConfig.from_json(tiny.config("7b-heads", speech=phase in _training.SPOKEN))
    shorten(monkeypatch, phase, **SHORT[phase])
    row = compile_report.train_report(config, sharding.make_mesh(mesh, _chips.devices(target)), target, phase, 2, remat)
    assert row["compiles"] and row["fits"] and row["cache_in_place"] and (row["rows"], row["remat"]) == (2, remat)
    assert 0 < row["model_flops"] < row["flops"] and 0 < row["utilisation"] < 1
    kept = 2 + (phase == "train-dit")  # Adam's two moments, and averages
    assert row["cache"] == pytest.approx(kept * row["gradients"], rel=0.01)
    assert (row["weights"] == row["gradients"]) == (phase == "train-8k")
    assert (row["collectives"] > 0) == (target != "h100")


def decoder_weights(config):
    D, N, K, H, L = (config.hidden_size, config.num_attention_heads, config.num_key_value_heads, config.head_dim,
                     config.num_hidden_layers)
    return L * (D * H * (2 * N + 2 * K) + 3 * D * config.intermediate_size)


def attended(config, length):
    """FLOPs of causal attention forward."""
    return 4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * length * length / 2


def test_the_work_of_a_training_step_is_that_of_its_shapes(monkeypatch):
    config = OmniConfig.from_json(tiny.config("7b-heads"))
    shorten(monkeypatch, "train-8k", **{"data.length": 64})
    _, step = _training.train_step(config, sharding.make_mesh("data=2", jax.devices()[:2]), "train-8k", 3, "none")
    text = config.thinker_config.text_config
    weights = decoder_weights(text) + text.hidden_size * text.vocab_size
    assert step.model_flops == pytest.approx(2 * 3 * (64 * 6 * weights + 3 * attended(text, 64)), rel=0.01)


def test_the_work_of_a_step_of_the_talker(monkeypatch):
    config = OmniConfig.from_json(tiny.config("7b-heads", speech=True))
    shorten(monkeypatch, "train-talker", **{"data.length": 96, "data.speech_length": 160})
    _, step = _training.train_step(config, sharding.make_mesh("fsdp=2", jax.devices()[:2]), "train-talker", 3, "none")
    text, talker = config.thinker_config.text_config, config.talker_config
    heard = 96 * 2 * decoder_weights(text) + attended(text, 96)
    weights = decoder_weights(talker) + talker.hidden_size * (talker.embedding_size + talker.vocab_size)
    said = 160 * 6 * weights + 3 * attended(talker, 160)
    assert step.model_flops == pytest.approx(2 * 3 * (heard + said), rel=0.01)
    state, frozen, (words, speech) = step.args
    assert all(path.startswith("talker/") for path in state.params) and frozen["thinker/decoder/norm/scale"]
    assert {leaf.dtype for leaf in frozen.values()} == {jnp.dtype(jnp.bfloat16)}
    assert words.token_ids.shape == (1, 6, 96) and speech.code.shape == (1, 6, 160)
    assert {leaf.sharding.spec[1] for leaf in jax.tree.leaves((words, speech))} == {("data", "fsdp")}


def test_the_work_of_a_step_of_the_dit(monkeypatch):
    config = OmniConfig.from_json(tiny.config("7b", speech=True))
    shorten(monkeypatch, "train-dit", **(SHORT["train-dit"] | {"speech.clip": 5}))
    _, step = _training.train_step(config, sharding.make_mesh(None, jax.devices()[:1]), "train-dit", 2, "none")
    c = config.token2wav_config.dit_config
    D, L, width, frames = c.hidden_size, c.num_hidden_layers, c.num_attention_heads * c.head_dim, 5 * c.block_size
    seen = c.block_size * (L + len(c.look_ahead_layers + c.look_backward_layers))
    each = L * (4 * D * width + 2 * c.ff_mult * D**2) + D * (2 * c.mel_dim + c.emb_dim / 2) + 2 * seen * width
    once = (6 * L + 2) * D**2 + 256 * D + D**2
    assert step.model_flops == pytest.approx(2 * 6 * (frames * each + once), rel=0.02)  # biases, at this size
    state, _, clips = step.args
    assert all(path.startswith(("token2wav/dit/", "speaker_encoder/")) for path in state.params)
    assert state.averages.keys() == state.params.keys() and clips.codes.shape == (1, 2, 5, c.block_size // 2)


def test_an_unrolled_loop_counts_each_of_its_turns_once():
    text = compiled_text(lambda x: jax.lax.fori_loop(0, 12, lambda _, x: jnp.tanh(x @ x), x), (64, 64))
    assert _hlo.account(HLO.replace("GROUPS", "[2,4]<=[8]")).kernels == 7
    stepped = HLO.replace("GROUPS", "[2,4]<=[8]").replace("tuple(%i, %all", "tuple(%next, %all").replace(
        "  %near =", "  %two = s32[] constant(2)\n  %next = s32[] add(%i, %two)\n  %near =")
    assert _hlo.account(stepped).collectives == 4  # 0, 2, 4, 6
    assert _hlo.account(text).flops >= 12 * 2 * 64**3


def test_splash_attention_computes_what_is_on_and_below_the_diagonal():
    cost = _hlo.account("""HloModule splash

ENTRY %main (m: s8[1,4,4], q: bf16[6,2048,128], k: bf16[2,2048,128]) -> bf16[6,2048,128] {
  %m = s8[1,4,4] parameter(0)
  %q = bf16[6,2048,128] parameter(1)
  %k = bf16[2,2048,128] parameter(2)
  ROOT %splash_mha_fwd_segmented.1 = bf16[6,2048,128] custom-call(%m, %m, %q, %k, %k), custom_call_target="t", meta={
"xprof_metadata":"{\\"block_q\\": 512, \\"block_kv\\": 512}"
}}, more={}
}
""")
    assert cost.flops == 2 * 2 * 6 * 128 * 512**2 * (4 + 6)  # four blocks on the diagonal, six below


@pytest.mark.parametrize("target, mask, products", [("fmhaSoftmax", "NO_MASK", 2), ("fmhaSoftmax", "CAUSAL", 1),
                                                    ("fmhaSoftmaxBackward", "CAUSAL", 2.5)])
def test_cudnns_attention_multiplies_more_in_its_backward_pass(target, mask, products):
    cost = _hlo.account("""HloModule attention

ENTRY %main (q: bf16[1,6,64,128], k: bf16[1,2,64,128]) -> bf16[1,6,64,128] {
  %q = bf16[1,6,64,128] parameter(0)
  %k = bf16[1,2,64,128] parameter(1)
  ROOT %r = bf16[1,6,64,128] custom-call(%q, %k, %k), custom_call_target="__cudnn$TARGET", backend_config={"x":
 {"intermediate_tensor_shape": {"element_type": "BF16", "dimensions": ["1", "6", "64", "64"]}, "mask_type": "MASK",
 "bmm1_grad_gemm1_dot_dimension_numbers": {"lhs_contracting_dimensions": ["2"]}}}
}
""".replace("\n {", " {").replace("\n \"bmm", " \"bmm").replace("TARGET", target).replace("MASK", mask))
    assert cost.flops == products * 2 * 6 * 64 * 64 * 128


def test_errors_say_what_to_do(config_file, monkeypatch):
    with pytest.raises(OmniError, match="choose one of"):
        compile_report.main([str(config_file), "--target", "v99:2x2"])
    for options in (["--first-audio", "1000"], ["--phase", "solve-first"], ["--phase", "train-8k", "train-talker"]):
        with pytest.raises(OmniError, match="no Talker"):
            compile_report.main([str(config_file), "--target", "v5e:2x2", *options])
    monkeypatch.setattr(_chips, "missing", lambda target: "libtpu")
    with pytest.raises(OmniError, match=r"libtpu.*pip install"):
        compile_report.main([str(config_file), "--target", "v5e:2x2"])


def test_a_collective_split_over_fusions_counts_once():
    part = """%{name} (p: f32[8]) -> f32[32] {{
  %p = f32[8] parameter(0)
  ROOT %g = f32[32] all-gather(%p), channel_id=3, replica_groups={{{{0,1,2,3}}}}, dimensions={{0}}
}}

"""
    entry = """ENTRY %main (q: f32[8]) -> f32[32] {
  %q = f32[8] parameter(0)
  %one = f32[32] fusion(%q), kind=kCustom, calls=%start
  ROOT %two = f32[32] fusion(%q), kind=kCustom, calls=%step
}
"""
    cost = _hlo.account("HloModule split\n\n" + part.format(name="start") + part.format(name="step") + entry)
    assert (cost.collectives, cost.wire) == (1, 3 * 4 * 8)


def test_a_prefetched_slice_reads_the_slice_only():
    cost = _hlo.account("""HloModule prefetch

ENTRY %main (p: f32[64,32]) -> f32[16,32] {
  %p = f32[64,32] parameter(0)
  %start = ((f32[64,32]), f32[16,32]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%p), slice={[0:16], [0:32]}
  ROOT %done = f32[16,32]{1,0:S(1)} slice-done(%start)
}
""")
    assert cost.bytes == 4 * 16 * 32


@pytest.mark.parametrize("space, moved", [("", 50000), ("S(1)", 4 * 8 * 128)])
def test_a_kernel_says_itself_how_often_it_reads_main_memory(space, moved):
    cost = _hlo.account("""HloModule kernel

ENTRY %main (p: f32[8,128]) -> f32[8,128] {
  %p = f32[8,128]{1,0SPACE} parameter(0)
  ROOT %k = f32[8,128]{1,0} custom-call(%p), custom_call_target="k", backend_config=ESTIMATE
}
""".replace("SPACE", f":{space}" if space else "")
       .replace("ESTIMATE", '{"cost_estimate":{"flops":"700","bytes_accessed":"50000"}}'))
    assert (cost.flops, cost.bytes) == (700, moved)
