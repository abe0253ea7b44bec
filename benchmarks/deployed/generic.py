"""What a generic exporter makes: pytorchcv's ShuffleNet, written by torch.onnx, in the same onnxruntime as ours."""

import io

import onnxruntime
import torch
from pytorchcv.models.shufflenet import get_shufflenet

SIZE = (224, 224)  # of pictures: pytorchcv's network ends in a pool over 7x7 positions


class _FromPictures(torch.nn.Module):
  """uint8 (n, h, w, 3) -> the output of a network that takes scaled pictures, float32 (n, 3, h, w)."""

  def __init__(self, network: torch.nn.Module, mean, std):
    super().__init__()
    self.network = network
    self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))  # (c,) -> (1, c, 1, 1)
    self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))  # (c,) -> (1, c, 1, 1)

  def forward(self, images: torch.Tensor) -> torch.Tensor:
    x = images.permute(0, 3, 1, 2).float()  # (n, h, w, c) -> (n, c, h, w)
    return self.network((x - self.mean) / self.std)


def load(groups: int, scale: float, scaling: tuple | None):
  """A function uint8 (1, 224, 224, 3) -> logits, float32 (1, 1000), with random weights.

  Args:
    groups, scale: of the ShuffleNet.
    scaling: mean and standard deviation of each channel, for a file that does the same as ours; None for one that takes
      a scaled and transposed picture. Pictures are then ignored, as their preparation is not to be timed.
  """
  net = get_shufflenet(groups, scale)
  example = torch.randn(1, 3, *SIZE)
  if scaling:
    net, example = _FromPictures(net, *scaling), torch.randint(0, 256, (1, *SIZE, 3), dtype=torch.uint8)
  file = io.BytesIO()
  torch.onnx.export(net.eval(), (example,), file, dynamo=False)  # the other exporter needs onnxscript
  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = 1
  session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
  name, scaled = session.get_inputs()[0].name, example.numpy()
  return lambda images: session.run(None, {name: images if scaling else scaled})[0]
