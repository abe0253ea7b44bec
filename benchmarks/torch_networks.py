"""The networks of `benchmarks.train_step` in PyTorch."""

import torch
from pytorchcv.models import mobilenet, shufflenet

from shufflenet_jax.models.baselines.other_units import stage_widths


def network(model, name: str, image_size: int) -> torch.nn.Module:
  """The same network as a Flax module of ours, with its own initial parameters: (n, 3, h, w) -> logits.

  Args:
    model: the Flax module.
    name: "shufflenet_v1" or "mobilenet_v1", which pytorchcv has; or "resnet", which is written here.
    image_size: height and width; for pytorchcv's networks from 193 to 224, because their last pools have 7x7 positions.
  """
  size = {"in_size": (image_size, image_size)}
  if name == "shufflenet_v1":
    return shufflenet.get_shufflenet(model.groups, model.scale, **size)
  if name == "mobilenet_v1":
    return mobilenet.get_mobilenet(model.scale, **size)
  return ResNet(model)


def conv_norm(c_in: int, c_out: int, kernel: int, stride: int = 1) -> list[torch.nn.Module]:
  """A convolution and its batch norm."""
  return [torch.nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False), torch.nn.BatchNorm2d(c_out)]


class Bottleneck(torch.nn.Module):
  """A residual unit of Table 4's ResNet: 1x1 to a quarter of the channels, 3x3, 1x1."""

  def __init__(self, c_in: int, c_out: int, stride: int):
    super().__init__()
    m, relu = max(c_out // 4, 1), torch.nn.ReLU(inplace=True)
    layers = (*conv_norm(c_in, m, 1), relu, *conv_norm(m, m, 3, stride), relu, *conv_norm(m, c_out, 1))
    self.branch = torch.nn.Sequential(*layers)
    same = stride == 1 and c_in == c_out
    self.shortcut = torch.nn.Identity() if same else torch.nn.Sequential(*conv_norm(c_in, c_out, 1, stride))

  def forward(self, x):
    """Adds the branch to the shortcut."""
    return torch.relu(self.shortcut(x) + self.branch(x))


class ResNet(torch.nn.Sequential):
  """`Table4Net` with unit="resnet"."""

  def __init__(self, model):
    relu, pool = torch.nn.ReLU(inplace=True), torch.nn.MaxPool2d(3, 2, 1)
    layers, c = [*conv_norm(3, model.stem, 3, 2), relu, pool], model.stem
    for width, units in zip(stage_widths(model.stage4), model.repeats):
      for unit in range(units):
        layers.append(Bottleneck(c, width, stride=2 if unit == 0 else 1))
        c = width
    super().__init__(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(c, model.num_classes))
