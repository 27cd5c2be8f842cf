"""REINFORCE on a pole that is balanced on a cart."""

import math
import random
from collections import deque

import torch
from torch import Tensor, nn, optim
from torch.distributions import Categorical
from torch.nn import functional as F

import offbeat  # offbeat

gamma, updates, longest = 0.99, 70, 40


class CartPole:
    """The usual equations of motion, in steps of 0.02 s; an episode ends when the pole falls or the cart is
    gone.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def reset(self) -> list[float]:
        self.state = [self.rng.uniform(-0.05, 0.05) for _ in range(4)]
        return self.state

    def step(self, action: int) -> tuple[list[float], float, bool]:
        x, v, angle, spin = self.state
        push = (10.0 if action else -10.0) + 0.05 * spin**2 * math.sin(angle)
        turn = 9.8 * math.sin(angle) - math.cos(angle) * push / 1.1
        turn /= 0.5 * (4 / 3 - 0.1 * math.cos(angle) ** 2 / 1.1)
        move = (push - 0.05 * turn * math.cos(angle)) / 1.1
        self.state = [x + 0.02 * v, v + 0.02 * move, angle + 0.02 * spin, spin + 0.02 * turn]
        return self.state, 1.0, abs(self.state[0]) > 2.4 or abs(self.state[2]) > 0.21


class Policy(nn.Module):
    """From the state to the odds of both pushes."""

    def __init__(self) -> None:
        super().__init__()
        self.affine1, self.affine2 = nn.Linear(4, 32), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(self.affine2(F.relu(self.affine1(x))), dim=-1)


def build() -> Policy:
    torch.manual_seed(543)
    return Policy()


def episode(policy: Policy, env: CartPole) -> tuple[list[Tensor], list[float]]:
    log_probs, rewards, state = [], [], env.reset()
    for _ in range(longest):
        m = Categorical(policy(torch.tensor(state)), validate_args=False)
        action = m.sample()
        log_probs.append(m.log_prob(action))
        state, reward, done = env.step(int(action))
        rewards.append(reward)
        if done:
            break
    return log_probs, rewards


@torch.no_grad()
def held_out_loss(policy: Policy) -> float:
    """How much earlier than at the end an episode ends."""
    torch.manual_seed(0)
    env = CartPole(seed=99)
    return longest - sum(len(episode(policy, env)[1]) for _ in range(20)) / 20


def main() -> None:
    agent = offbeat.join()  # offbeat
    policy = build()
    optimizer: optim.Optimizer = optim.Adam(policy.parameters(), lr=1e-2)
    torch.manual_seed(543 + agent.rank)  # offbeat
    env = CartPole(seed=torch.initial_seed())
    optimizer = agent.wrap(policy, optimizer)  # offbeat
    running_reward = 10.0
    while agent.steps < updates:  # offbeat
        log_probs, rewards = episode(policy, env)
        running_reward = 0.05 * len(rewards) + 0.95 * running_reward
        returns: deque[float] = deque()
        for r in reversed(rewards):
            returns.appendleft(r + gamma * (returns[0] if returns else 0.0))
        target = torch.tensor(list(returns))
        target = (target - target.mean()) / (target.std() + 1e-6)
        optimizer.zero_grad()
        (-torch.stack(log_probs) * target).sum().backward()
        optimizer.step()
        print(f"Last reward: {len(rewards)}\tAverage reward: {running_reward:.2f}")


if __name__ == "__main__":
    main()
