"""ShuffleNet V1 in PyTorch, in the order of the paper: pytorchcv's if installed, else the same network here."""

import importlib.metadata
import importlib.util

import torch
from torch import nn

from shufflenet_jax.models.shufflenet import stage_channels, stem_channels


class Unit(nn.Module):
  """The unit of Fig. 2b (stride 1) or 2c (stride 2): (n, c_in, h, w) -> (n, c_out, h / stride, w / stride)."""

  def __init__(self, c_in: int, c_out: int, groups: int, compress_groups: int, stride: int):
    super().__init__()
    self.groups, self.stride = groups, stride
    bottleneck, branch = c_out // 4, c_out - c_in if stride == 2 else c_out
    self.compress = nn.Conv2d(c_in, bottleneck, 1, groups=compress_groups, bias=False)
    self.compress_norm = nn.BatchNorm2d(bottleneck)
    self.depthwise = nn.Conv2d(bottleneck, bottleneck, 3, stride, padding=1, groups=bottleneck, bias=False)
    self.depthwise_norm = nn.BatchNorm2d(bottleneck)
    self.expand = nn.Conv2d(bottleneck, branch, 1, groups=groups, bias=False)
    self.expand_norm = nn.BatchNorm2d(branch)
    self.pool = nn.AvgPool2d(3, stride=2, padding=1)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    y = torch.relu(self.compress_norm(self.compress(x)))
    n, c, h, w = y.shape
    # (n, c, h, w) -> (n, g, c/g, h, w) -> (n, c/g, g, h, w) -> (n, c, h, w)
    y = y.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)
    y = self.expand_norm(self.expand(self.depthwise_norm(self.depthwise(y))))
    return torch.relu(x + y if self.stride == 1 else torch.cat([y, self.pool(x)], 1))


class ShuffleNet(nn.Module):
  """The network of Table 1: (n, 3, h, w) -> logits (n, num_classes)."""

  def __init__(self, groups: int, stem: int, stages: list[list[int]], num_classes: int):
    """
    Args:
      groups: of the 1x1 convolutions.
      stem: output channels of Conv1.
      stages: the output channels of each unit, for each stage.
      num_classes: of the classifier.
    """
    super().__init__()
    self.stem = nn.Sequential(nn.Conv2d(3, stem, 3, 2, padding=1, bias=False), nn.BatchNorm2d(stem), nn.ReLU())
    self.pool = nn.MaxPool2d(3, 2, padding=1)
    units, c_in = [], stem
    for channels in stages:
      for i, c_out in enumerate(channels):
        units.append(Unit(c_in, c_out, groups, groups if units else 1, 2 if i == 0 else 1))
        c_in = c_out
    self.units = nn.Sequential(*units)
    self.classifier = nn.Linear(c_in, num_classes)

  def forward(self, images: torch.Tensor) -> torch.Tensor:
    return self.classifier(self.units(self.pool(self.stem(images))).mean((2, 3)))


def network(groups: int, scale: float, repeats: tuple[int, ...], num_classes: int) -> nn.Module:
  """The network that PyTorch is measured with. It has the widths of ours."""
  stages = [[width] * count for width, count in zip(stage_channels(groups, scale), repeats)]
  stem = stem_channels(groups, scale)
  if not importlib.util.find_spec("pytorchcv"):
    return ShuffleNet(groups, stem, stages, num_classes)
  from pytorchcv.models import shufflenet

  net = shufflenet.ShuffleNet(stages, stem, groups, num_classes=num_classes)
  net.features.final_pool = nn.AdaptiveAvgPool2d(1)  # its own pool is made for images of 224x224
  return net


def source() -> str:
  """Where `network` comes from, in words."""
  if not importlib.util.find_spec("pytorchcv"):
    return "benchmarks/gpu/torch_network.py"
  return f"pytorchcv {importlib.metadata.version('pytorchcv')}"
