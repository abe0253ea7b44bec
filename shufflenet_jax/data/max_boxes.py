"""The most boxes that a picture can have. In a batch, every picture is padded to this number. COCO has at most 93."""

MAX_BOXES = 100
