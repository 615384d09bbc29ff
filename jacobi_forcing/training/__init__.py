"""What a packed sequence teaches: schedule, layout, mask, losses, and the trainer around them.

`schedule`, `first_fit` and `packing` know only ids and need no PyTorch; `layout`, `mask` and `loss`
know only tensors; `trainer` joins them. May import: config, errors, data, models, decoding.
"""
