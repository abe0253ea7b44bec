"""Every number of Faster R-CNN's training and inference around the networks."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Settings:
  """The paper used "publicly released Caffe code" with "default settings" (section 4.4).

  Below, the source of each default follows its description. A source without a number has the same value as here; a
  number after a source is the value there. "Caffe" is rbgirshick/py-faster-rcnn: `lib/fast_rcnn/config.py` and
  `models/coco/VGG16/faster_rcnn_end2end`.

  Attributes:
    anchor_sizes: square roots of the anchors' areas, pixels. Caffe's for a short side of 600; for 300, half of them.
    anchor_ratios: height divided by width. Caffe.
    max_anchor_overhang: anchors that extend further beyond the picture, in pixels, are not trained. Caffe: 0. Proposals
      are made from them nevertheless, and clipped. Independent of it, an anchor whose centre is outside the picture, in
      the padding of the canvas, is neither trained nor proposed.
    rpn_positive_iou: from this IoU with an object, an anchor is positive; so is each object's best one. Caffe.
    rpn_negative_iou: below this IoU with every object, an anchor is negative; those in between are ignored. Caffe.
    rpn_samples: anchors per picture in the loss. Caffe.
    rpn_positive_share: at most this share of them is positive. Caffe.
    rpn_box_beta: where smooth L1 turns from quadratic to linear, for anchors. Caffe (sigma 3), torchvision: 1/9.
    crowd_ioa: an anchor or proposal that is not positive, and has more than this share of its area in a crowd, is
      ignored. Caffe (TRAIN.CROWD_THRESH).
    proposal_nms_iou: NMS threshold of proposals. Caffe.
    min_proposal_side: shorter proposals are dropped, pixels of the canvas. torchvision; Caffe: 16, which would lose
      COCO's small objects.
    train_proposals: number of anchors with the highest objectness before NMS, in training; as many can remain after it.
      tensorflow/models; Caffe: 12,000 before, 2,000 after.
    test_anchors: the same in inference. tensorflow/models; Caffe: 6,000.
    test_proposals: proposals that remain after NMS, in inference. Caffe.
    roi_samples: regions per picture in the head's loss. Caffe.
    roi_foreground_share: at most this share of them is foreground. Caffe.
    roi_foreground_iou: from this IoU with an object, a proposal is foreground; otherwise, even at IoU 0, it is
      background. Caffe; that IoU 0 counts as background is from its end-to-end COCO model.
    roi_box_beta: as `rpn_box_beta`, for regions. Caffe, tensorflow/models (Huber loss): 1.
    box_weights: weights of (ty, tx, th, tw) for regions. Caffe (1 / BBOX_NORMALIZE_STDS).
    min_score: detections have a higher one. Caffe (`test_net`).
    nms_iou: NMS threshold of detections, within a class. Caffe.
    detections: at most so many per picture. Caffe, and COCO's evaluation.
  """

  anchor_sizes: tuple[float, ...] = (64.0, 128.0, 256.0, 512.0)
  anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
  max_anchor_overhang: float = 0.0
  rpn_positive_iou: float = 0.7
  rpn_negative_iou: float = 0.3
  rpn_samples: int = 256
  rpn_positive_share: float = 0.5
  rpn_box_beta: float = 1 / 9
  crowd_ioa: float = 0.7
  proposal_nms_iou: float = 0.7
  min_proposal_side: float = 1e-3
  train_proposals: int = 2000
  test_anchors: int = 1000
  test_proposals: int = 300
  roi_samples: int = 128
  roi_foreground_share: float = 0.25
  roi_foreground_iou: float = 0.5
  roi_box_beta: float = 1.0
  box_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
  min_score: float = 0.05
  nms_iou: float = 0.3
  detections: int = 100

  @property
  def anchors_per_position(self) -> int:
    """Every size in every aspect ratio."""
    return len(self.anchor_sizes) * len(self.anchor_ratios)
