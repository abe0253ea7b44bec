"""Several ways to compute the ShuffleNet unit and the stem: the same function and parameters, at different speeds.

- `reference`: the paper, line for line. Every other formulation is tested against it.
- `dense`: for TPUs and GPUs. `planes`: for CPUs.
- `choose`: which platform uses which, and why.

A formulation is a module with two functions, `unit` and `stem`, that have the signatures of those in `reference`. To
add one, write that file and add its row to `choose.FORMULATIONS`.
"""
