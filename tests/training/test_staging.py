"""The way of a model between a GPU and the host. Without a GPU only that buffers on the host stand for
themselves.
"""

import pytest
import torch

from offbeat.core.vector import Leased
from offbeat.training.flat import Staging
from offbeat.training.member import Member

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_buffers_on_the_host_stand_for_themselves() -> None:
    part = torch.arange(4.0)
    staging = Staging((part,))
    (down,) = staging.down()
    assert down is part and type(staging.down()) is Leased
    staging.up((torch.ones(4),))
    assert part.tolist() == [1.0] * 4


@needs_gpu
def test_what_goes_down_is_what_was_queued_before_and_what_goes_up_is_seen_by_what_is_queued_after() -> None:
    part = torch.zeros(1 << 22, device="cuda")
    staging = Staging((part,))
    assert staging.host[0].is_pinned()
    for k in range(50):
        part.fill_(k)
        part.add_(1)
        (host,) = staging.down()
        part.fill_(-1)
        assert bool((host == k + 1).all())
        staging.up((torch.full((1 << 22,), 10.0 * k),))
        assert bool((part == 10.0 * k).all())


@needs_gpu
def test_an_agent_alone_trains_on_the_gpu_as_without_offbeat() -> None:
    def trained(wrapped: bool) -> torch.Tensor:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.Tanh(), torch.nn.Linear(30, 5)).cuda()
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        if wrapped:
            optimizer = Member(None).wrap(model, optimizer)
        for _ in range(30):
            x = torch.randn(16, 20, device="cuda")
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        return torch.cat([p.detach().flatten().cpu() for p in model.parameters()])

    torch.testing.assert_close(trained(True), trained(False), rtol=1e-6, atol=1e-7)
