"""Room for trainings: by node and placement, with what an autoscaler can add; what never fits is refused in a line."""

import pytest

from mambacl.platform.config import ResourcesConfig
from mambacl.platform.places import places_for, places_on
from mambacl.tasks.config import ConfigError, parse

CPU_NODES = [{"CPU": 2.0}, {"CPU": 2.0}, {"CPU": 4.0}]
GPU_NODES = [
    {"CPU": 8.0, "GPU": 2.0, "accelerator_type:A100": 1.0},
    {"CPU": 8.0, "GPU": 4.0, "accelerator_type:T4": 1.0},
    {"CPU": 1.0},
]


@pytest.mark.parametrize(
    ("nodes", "need", "places"),
    [
        (CPU_NODES, {}, 8),
        (CPU_NODES, {"cpus": 3}, 1),
        (CPU_NODES, {"cpus": 5}, 0),
        (CPU_NODES, {"workers": 3}, 2),
        (CPU_NODES, {"workers": 3, "placement": "STRICT_PACK"}, 1),
        (CPU_NODES, {"workers": 3, "placement": "STRICT_SPREAD"}, 2),
        (CPU_NODES, {"workers": 3, "placement": "STRICT_SPREAD", "cpus": 2}, 1),
        (CPU_NODES, {"workers": 4, "placement": "STRICT_SPREAD"}, 0),
        (CPU_NODES, {"workers": 2, "cpus": 2}, 2),
        (CPU_NODES, {"workers": 2, "cpus": 3, "placement": "SPREAD"}, 0),
        (GPU_NODES, {"gpus": 1}, 6),
        (GPU_NODES, {"gpus": 1, "accelerator": "A100"}, 2),
        (GPU_NODES, {"gpus": 1, "accelerator": "H100"}, 0),
        (GPU_NODES, {"gpus": 0.5, "accelerator": "A100"}, 4),
        (GPU_NODES, {"gpus": 0.6, "accelerator": "T4"}, 4),
        (GPU_NODES, {"gpus": 3}, 1),
        (GPU_NODES, {"gpus": 4, "workers": 2}, 0),
    ],
)
def test_places(nodes, need, places):
    assert places_on(nodes, parse(ResourcesConfig, need)) == places


def test_shares_of_more_than_one_gpu_are_refused():
    with pytest.raises(ConfigError, match=r"gpus: more than one must be whole, got 1\.5$"):
        parse(ResourcesConfig, {"gpus": 1.5})


def test_an_autoscaler_is_trusted_as_far_as_it_says_what_it_can_add(caplog):
    """A node with a group may get neighbours; groups that the autoscaler has reported bound them."""
    import ray  # after mambacl, whose switches it reads
    from ray.core.generated import autoscaler_pb2
    from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_put

    ray.init(address="local", num_cpus=2, labels={"ray.io/node-group": "small"}, include_dashboard=False,
             log_to_driver=False)  # fmt: skip
    try:
        assert places_for(ResourcesConfig()) == 2
        assert places_for(ResourcesConfig(cpus=4, gpus=1)) == 1
        assert "resources: 1 worker of 4 CPUs and 1 GPU (PACK) do not fit on nodes of 2 CPUs; waiting" in caplog.text
        groups = autoscaler_pb2.ClusterConfig()
        groups.node_group_configs.add(name="head", resources={"CPU": 2}, max_count=1)
        groups.node_group_configs.add(name="large", resources={"CPU": 8, "GPU": 1}, max_count=3)
        where = {
            "key": ray._raylet.GCS_AUTOSCALER_CLUSTER_CONFIG_KEY.encode(),
            "namespace": ray._raylet.GCS_AUTOSCALER_STATE_NAMESPACE.encode(),
        }
        _internal_kv_put(value=groups.SerializeToString(), **where)
        assert places_for(ResourcesConfig(cpus=4, gpus=1)) == 3
        with pytest.raises(ConfigError) as caught:
            places_for(ResourcesConfig(workers=4, gpus=1, accelerator="A100"))
        assert str(caught.value) == (
            "resources: 4 workers of 1 CPU and 1 GPU A100 (PACK) do not fit; "
            "the cluster has nodes of 2 CPUs; 8 CPUs and 1 GPU (3 of them)"
        )
        groups.node_group_configs[1].max_count = -1
        _internal_kv_put(value=groups.SerializeToString(), **where)
        assert places_for(ResourcesConfig(workers=4, gpus=1)) > 3
        _internal_kv_del(**where)
    finally:
        ray.shutdown()
