"""Networks: fresh, pooled, trained, looked at by their gradients, and judged by.

`fresh` makes networks of given draws, `training` holds the only loop that trains classifiers,
`pool` keeps what it trained on real data by content, and `teacher` labels images with such a pool.
"""
