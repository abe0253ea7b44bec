"""Runs a .tflite file on the emulated machine, which has only Python, NumPy and LiteRT: FILE INFERENCES.

Each inference is between two calls of getppid, at which the plugin prints the number of instructions until then.
"""

import os
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter

interpreter = Interpreter(model_path=sys.argv[1], num_threads=1)
interpreter.allocate_tensors()
(details,) = interpreter.get_input_details()
picture = np.random.default_rng(0).integers(0, 256, details["shape"], np.uint8)
interpreter.set_tensor(details["index"], picture)
interpreter.invoke()  # the first one prepares what later ones reuse
os.getppid()
for _ in range(int(sys.argv[2])):
  interpreter.invoke()
  os.getppid()
