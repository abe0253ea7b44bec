"""Object detection with Faster R-CNN (section 4.4, Table 7): what is around the two networks of `models.faster_rcnn`.

    anchors.py     the boxes that proposals start from          proposals.py   the boxes that are recognised
    matching.py    which of them contain which object           losses.py      what is minimised
    sampling.py    which of them are trained on                 detections.py  the answer for a picture
    settings.py    every number of these, and its source        objective.py   the loss of a batch

Shapes are static: every picture has the same number of boxes, filled up with padding whose label is -1. All box
arithmetic is float32. Most functions take one picture; `objective.loss` and `detections.detect` take a batch and map
them over it, so that the result for a picture does not depend on the others.
"""
