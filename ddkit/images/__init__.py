"""Images: real and synthetic, how they are drawn, augmented, stored and stepped.

Start with `synthetic`, the learned images and their file, and `real`, batches of the dataset. Rows
of a batch are known by class through `groups`; `optimizers` steps once per class as published
programs do, for all classes at once.
"""
