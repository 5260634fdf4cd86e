"""Feed-forward part of a block as a mixture of experts (Shazeer et al., 2017; Fedus et al., 2022, for the balance loss).

Shapes: B episodes, L tokens, D width, E experts, F hidden width of an expert.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mambacl.learners.sequence_config import ExpertsConfig


class Mixture(nn.Module):
    """Each token goes to the `active` experts that the router likes best, weighted by its shares among them.

    An expert has 1 / active of the dense width, so that as many weights take part in a token as in a dense part.
    """

    def __init__(self, width: int, hidden: int, config: ExpertsConfig) -> None:
        super().__init__()
        E, F = config.count, max(1, hidden // config.active)
        self.active = config.active
        self.router = nn.Linear(width, E, bias=False)
        self.up = nn.Parameter(torch.empty(E, width, F).uniform_(-(width**-0.5), width**-0.5))
        self.up_bias = nn.Parameter(torch.zeros(E, F))
        self.down = nn.Parameter(torch.empty(E, F, width).uniform_(-(F**-0.5), F**-0.5))
        self.down_bias = nn.Parameter(torch.zeros(E, width))

    @property
    def idle_parameters(self) -> int:
        """Parameters of the experts that a token does not go to."""
        E = len(self.up)
        own = sum(p.numel() for p in (self.up, self.up_bias, self.down, self.down_bias)) // E
        return (E - self.active) * own

    def forward(self, x_BLD: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Outputs (B, L, D), and the routing: the router's shares and the experts chosen (0 or 1), both (B, L, E)."""
        with torch.autocast(x_BLD.device.type, enabled=False):
            share_BLE = self.router(x_BLD.to(self.router.weight.dtype)).softmax(-1)
        top = share_BLE.topk(self.active, -1)
        chosen_BLE = torch.zeros_like(share_BLE).scatter(-1, top.indices, 1.0)
        gate_BLE = torch.zeros_like(share_BLE).scatter(-1, top.indices, top.values / top.values.sum(-1, keepdim=True))
        flat_ND, gate_NE = x_BLD.flatten(0, 1), gate_BLE.flatten(0, 1).to(x_BLD.dtype)
        y_ND = torch.zeros_like(flat_ND)
        for e, rows in enumerate(chosen_BLE.flatten(0, 1).T.unbind(0)):
            own = rows.nonzero().squeeze(-1)
            hidden = F.gelu(flat_ND[own] @ self.up[e] + self.up_bias[e])
            y_ND = y_ND.index_add(0, own, gate_NE[own, e : e + 1] * (hidden @ self.down[e] + self.down_bias[e]))
        return y_ND.view_as(x_BLD), {"router": share_BLE, "chosen": chosen_BLE}


def balance_loss(share_BLE: Tensor, chosen_BLE: Tensor) -> Tensor:
    """Of each episode (B,): E sum_e (share of the tokens sent to e) (mean share of e in the router), 1 when even.

    Fedus et al. (2022) take it over a batch; over an episode, the gradient does not depend on how a batch is divided.
    """
    E = share_BLE.shape[-1]
    sent_BE = chosen_BLE.sum(1) / chosen_BLE.sum((1, 2)).unsqueeze(-1)
    return E * (sent_BE * share_BLE.mean(1)).sum(-1)
