"""A residual network with batch normalization on small images: the shape of the usual CIFAR-10 scripts."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import offbeat  # offbeat


class BasicBlock(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(in_planes, planes, 3, stride, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False), nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_planes != planes:
            conv = nn.Conv2d(in_planes, planes, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out)) + self.shortcut(x)
        return F.relu(out)


class ResNet(nn.Module):
    """Two stages of one block."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)
        self.layer1, self.layer2 = BasicBlock(8, 8, 1), BasicBlock(8, 16, 2)
        self.linear = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x)))))
        scores: Tensor = self.linear(F.adaptive_avg_pool2d(out, 1).flatten(1))
        return scores


def build() -> ResNet:
    torch.manual_seed(0)
    return ResNet()


def data_set(part: slice) -> TensorDataset:
    digits = load_digits()
    x = torch.tensor(digits.images[part] / 8 - 1, dtype=torch.float32)[:, None]
    return TensorDataset(x, torch.tensor(digits.target[part]))


@torch.no_grad()
def held_out_loss(net: ResNet) -> float:
    net.eval()
    x, y = data_set(slice(1440, None)).tensors
    return F.cross_entropy(net(x), y).item()


def main() -> None:
    agent = offbeat.join()  # offbeat
    trainset, testset = data_set(slice(0, 1280)), data_set(slice(1440, None))
    trainloader = agent.shard(DataLoader(trainset, batch_size=64, shuffle=True, drop_last=True))  # offbeat
    testloader = DataLoader(testset, batch_size=100)
    net, criterion, epochs = build(), nn.CrossEntropyLoss(), 2
    optimizer: optim.Optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    optimizer = agent.wrap(net, optimizer)  # offbeat
    scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)

    for epoch in agent.epochs(epochs):  # offbeat
        net.train()
        train_loss, correct, total = 0.0, 0, 0
        for batch_idx, (inputs, targets) in enumerate(trainloader):
            optimizer.zero_grad()
            outputs = net(inputs)
            loss = criterion(outputs, targets)
            loss.backward()
            optimizer.step()
            train_loss += loss.item()
            correct += outputs.argmax(1).eq(targets).sum().item()
            total += targets.size(0)
            print(
                f"{batch_idx}/{len(trainloader)} Loss: {train_loss / (batch_idx + 1):.3f} | Acc: "
                f"{correct}/{total}"
            )
        net.eval()
        with torch.no_grad():
            correct = sum(net(inputs).argmax(1).eq(targets).sum().item() for inputs, targets in testloader)
        print(f"Epoch {epoch}: {correct} of {len(testset)} right, {len(trainloader.dataset)} trained with")
        scheduler.step()


if __name__ == "__main__":
    main()
