"""Associative recall: closed forms do what theory says, and sequence learners learn it."""

import pytest
import torch

from mambacl import learners, tasks
from mambacl.learners.objective import losses, scores
from mambacl.learners.selectivity import selectivity_losses
from mambacl.learners.selectivity_config import SelectivityConfig


def accuracy(learner, family, episodes=range(64)):
    episode = family.episodes("meta_test", episodes)
    with torch.no_grad():
        return float(scores(learner(episode).prediction, episode).mean())


@pytest.mark.parametrize("name", ["ridge", "knn", "nearest_mean", "online_sgd"])
def test_references_recall_orthogonal_keys_without_a_mistake(name):
    for order in ("blocked", "shuffled"):
        family = tasks.build({"name": "recall", "shots": 2, "stream": {"order": order}})
        assert accuracy(learners.build({"name": name}, family.spec), family) == 1


@pytest.mark.parametrize("reassign", [0.5, 1.0])
def test_what_ignores_order_cannot_tell_the_last_label_from_the_first(reassign):
    """Ridge gives both labels of a key the same answer, to rounding; gradient steps favour the later one."""
    family = tasks.build({"name": "recall", "reassign": reassign})
    ridge = learners.build({"name": "ridge"}, family.spec).double()
    episode = family.episodes("meta_test", range(64))
    top = ridge(episode).prediction.topk(2, dim=-1).values
    tied = (top[..., 0] - top[..., 1]).abs() < 1e-6
    assert tied.sum(1).tolist() == [round(16 * reassign)] * 64
    online = learners.build({"name": "online_sgd", "learning_rate": 3.0}, family.spec)
    assert accuracy(online, family) > 0.95


@pytest.mark.parametrize("name", ["mamba", "attention"])
def test_a_sequence_learner_learns_to_recall(name):
    """From chance (1 in 4) to nearly all keys of new episodes within 300 small steps."""
    family = tasks.build({"name": "recall", "tasks": 4, "dimensions": 8})
    torch.manual_seed(0)
    size = {"state_size": 16} if name == "mamba" else {}
    learner = learners.build({"name": name, "layers": 2, "width": 32, **size}, family.spec)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=3e-3)
    assert accuracy(learner, family) < 0.4
    for step in range(300):
        episode = family.episodes("meta_train", range(32 * step, 32 * step + 32))
        output = learner(episode, layers=(-1,))
        pull = selectivity_losses(output.associations[0], episode, SelectivityConfig())[0]
        (losses(output.prediction, episode).mean() + pull.mean()).backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 25 == 24 and accuracy(learner, family) > 0.95:
            return
    pytest.fail(f"accuracy {accuracy(learner, family):.2f} after 300 steps")
