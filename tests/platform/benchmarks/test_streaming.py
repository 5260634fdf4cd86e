"""What `bench streaming` measures: states that have really read so many examples."""

import torch

from mambacl.platform.benchmarks import streaming


def test_streams_are_read_to_their_lengths():
    family = streaming.build_family({"name": "recall", "tasks": 3, "shots": 2})
    episode = family.episodes("meta_test", [0])
    x, y = episode.support_x, episode.support_y
    for name in ("mamba", "attention"):
        learner = streaming.build_learner({"name": name}, family.spec).eval()
        with torch.inference_mode():
            state = streaming.read_on(learner, learner.init_state(1), x, y, 0, 6)
            whole = learner.observe(learner.init_state(1), x, y)
            assert int(state["tokens"]) == 12
            ours, expected = (learner.predict(read, episode.query_x).prediction for read in (state, whole))
            assert torch.allclose(ours, expected, atol=1e-5)
            rows = list(streaming.learner_rows(name, learner, (10, 100), x, y, "tiny"))
        held = {row.what: row.median for row in rows if row.unit == "bytes"}
        if name == "mamba":
            [size] = set(held.values())
            assert 0 < size / (4 * learner.state_floats(10)) - 1 < 0.1, "windows of convolutions are held whole"
        else:
            assert held["attention: state after 100"] >= 4 * learner.state_floats(100)
