"""How many boxes a picture can have; a batch holds so many for each, most of them padding. The most in COCO is 93."""

MAX_BOXES = 100
