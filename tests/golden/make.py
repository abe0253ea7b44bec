"""Makes tests/golden/outputs.npz with PyTorch and pytorchcv: python -m tests.golden.make

The network of the authors' release is written here in PyTorch: it shuffles after
the batch norm of the depthwise convolution, in the reversed order; it takes BGR;
its last layer has no bias.
"""

import torch
from torch import nn

from tests import golden

STAGE2 = {3: 240, 8: 384}
NUM_CLASSES = 11


class ReleaseUnit(nn.Module):
  """The unit of the authors' release."""

  def __init__(self, c_in, c_out, groups, first_groups, stride):
    super().__init__()
    self.groups, self.stride = groups, stride
    mid, branch = c_out // 4, c_out - c_in if stride == 2 else c_out
    self.branch_main_1 = nn.Sequential(
      nn.Conv2d(c_in, mid, 1, groups=first_groups, bias=False),
      nn.BatchNorm2d(mid),
      nn.ReLU(),
      nn.Conv2d(mid, mid, 3, stride, padding=1, groups=mid, bias=False),
      nn.BatchNorm2d(mid),
    )
    self.branch_main_2 = nn.Sequential(nn.Conv2d(mid, branch, 1, groups=groups, bias=False), nn.BatchNorm2d(branch))
    self.pool = nn.AvgPool2d(3, stride=2, padding=1)

  def forward(self, x):
    y = self.branch_main_1(x)
    n, c, h, w = y.shape
    y = y.reshape(n, c // self.groups, self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)
    y = self.branch_main_2(y)
    return torch.relu(x + y) if self.stride == 1 else torch.cat([self.pool(x), torch.relu(y)], 1)


class Release(nn.Module):
  """The network of the authors' release; takes BGR."""

  def __init__(self, groups, scale):
    super().__init__()
    c = {0.5: 16 if groups == 8 else 12, 1.0: 24, 1.5: 24, 2.0: 48}[scale]
    self.first_conv = nn.Sequential(nn.Conv2d(3, c, 3, 2, 1, bias=False), nn.BatchNorm2d(c), nn.ReLU())
    self.maxpool = nn.MaxPool2d(3, 2, padding=1)
    units = []
    for stage, repeats in enumerate((4, 8, 4)):
      c_out = int(scale * STAGE2[groups]) * 2**stage
      for i in range(repeats):
        units.append(ReleaseUnit(c, c_out, groups, 1 if not units else groups, 2 if i == 0 else 1))
        c = c_out
    self.features = nn.Sequential(*units)
    self.classifier = nn.Sequential(nn.Linear(c, NUM_CLASSES, bias=False))

  def forward(self, x):
    return self.classifier(self.features(self.maxpool(self.first_conv(x))).mean((2, 3)))


def pytorchcv_network(groups, scale):
  """pytorchcv's ShuffleNet V1; takes RGB. Its last pool, made for 224x224, is replaced to fit 64x64."""
  from pytorchcv.models.shufflenet import get_shufflenet

  net = get_shufflenet(groups=groups, width_scale=scale, num_classes=NUM_CLASSES)
  net.features.final_pool = nn.AdaptiveAvgPool2d(1)
  return net


def make() -> dict:
  """name -> (shapes of the state dict, logits)."""
  results = {}
  for name, (layout, groups, scale) in golden.CASES.items():
    net = Release(groups, scale) if layout == "release" else pytorchcv_network(groups, scale)
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    weights = golden.random_state_dict(shapes)
    net.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
    x = torch.from_numpy(golden.images()).permute(0, 3, 1, 2)  # n h w c -> n c h w
    with torch.no_grad():
      logits = net.eval()(x.flip(1) if layout == "release" else x)
    results[name] = (shapes, logits.numpy())
  return results


if __name__ == "__main__":
  golden.store(make())
  print(f"{golden.FILE}: {golden.FILE.stat().st_size:,} bytes")
