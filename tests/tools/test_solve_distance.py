import dataclasses

import numpy as np

from omni_jax import sharding
from omni_jax.inference import token2wav
from omni_jax.inference.schedule import Schedule
from tools import solve_distance


def test_distances_costs_and_their_picture(tmp_path, monkeypatch):
    """All that the tool does, on little: few layers, chunks of one block, one seed and length."""
    config = solve_distance.CONFIG
    dit = dataclasses.replace(config.dit_config, num_hidden_layers=3, look_ahead_layers=(1,),
                              look_backward_layers=(0, 2), hidden_size=32, num_attention_heads=2, head_dim=16)
    vocoder = dataclasses.replace(config.bigvgan_config, upsample_rates=(5,), upsample_kernel_sizes=(11,))
    for name, value in {"CONFIG": dataclasses.replace(config, dit_config=dit, bigvgan_config=vocoder),
                        "CHUNKS": (1,), "AHEADS": (0, 1), "LENGTHS": (60,), "SCHEDULE": Schedule((1,), (1,)),
                        "ROWS": 2}.items():
        monkeypatch.setattr(solve_distance, name, value)
    graphdef, params = solve_distance.network(0)
    params, losses = solve_distance.train(graphdef, params, 12)
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    synthesizer = token2wav.prepare(solve_distance.CONFIG, graphdef, params, sharding.make_mesh("data=1"))
    none, one, default = solve_distance.distances(synthesizer, 1)
    assert none["mel"] > 2 * one["mel"] > 0 and none["spectral_db"] > one["spectral_db"] > 0
    assert default["mel"] == one["mel"] and default["ahead"] == [1]
    long = solve_distance.cost(synthesizer, 240)
    assert long["bytes_held"][0] == long["bytes_held"][1] and len(long["seconds"]) == long["chunks"] > 9
    picture = tmp_path / "costs.png"
    solve_distance.draw(picture, {"random": [none, one], "trained": [none, one]}, long)
    assert picture.read_bytes().startswith(b"\x89PNG")
