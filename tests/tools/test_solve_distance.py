import json

import numpy as np

from tools import solve_distance


def test_distances_and_costs(tmp_path, monkeypatch, capsys):
    """Everything that the tool does, on little: its table, the cost of a long reply, and the picture of both."""
    monkeypatch.setattr(solve_distance, "CHUNKS", (1, 2))
    monkeypatch.setattr(solve_distance, "AHEADS", (0, 3))
    monkeypatch.setattr(solve_distance, "LENGTHS", (60,))
    picture = tmp_path / "costs.png"
    solve_distance.main(["--steps", "3", "--seeds", "1", "--codes", "1000", "--out", str(picture), "--json"])
    found = json.loads(capsys.readouterr().out)
    for weights in ("random", "trained"):
        rows = {(*row["chunk"], *row["ahead"]): row for row in found["distances"][weights]}
        assert set(rows) == {(1, 0), (2, 0), (1, 3), (2, 3), (2, 2, 4, 8, 1, 2)}
        for chunk in (1, 2):  # the further the look-ahead, the closer to the whole clip's solve
            assert rows[chunk, 0]["mel"] > 10 * rows[chunk, 3]["mel"] > 0
            assert rows[chunk, 0]["spectral_db"] > rows[chunk, 3]["spectral_db"]
    assert np.isfinite(found["loss"]).all()
    held = found["long"]["bytes_held"]
    assert held[0] == held[1] and found["long"]["codes"] == 1000
    assert picture.read_bytes().startswith(b"\x89PNG")
