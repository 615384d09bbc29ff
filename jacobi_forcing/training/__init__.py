"""What a packed sequence teaches: schedule, layout, mask, losses, and the trainer around them.

`schedule` and `layout` know only ids, `mask` and `loss` only tensors; `trainer` joins them. May
import: config, errors, data, models, decoding.
"""
