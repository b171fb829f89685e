"""What Python alone can hand in: datasets and networks as objects, and progress in a notebook."""
