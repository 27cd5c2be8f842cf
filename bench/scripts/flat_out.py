"""A script that an agent runs as fast as it can, for so many seconds: a tiny model, no data to load.

Arguments: seconds
"""

import sys
import time

import torch
from torch import nn

import offbeat

torch.manual_seed(0)
model = nn.Linear(64, 10)
agent = offbeat.join()
optimizer = agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9))
x, y = torch.randn(32, 64), torch.randint(10, (32,))
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
