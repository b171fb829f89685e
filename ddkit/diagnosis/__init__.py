"""Looking before doing: what ddkit finds on this machine, in the data, and of a run's price.

`environment` looks at the machine, `inspection` at a dataset's images, `probe` tries a few real
steps of a recipe. What a run is refused for without any of this is `distillation.preflight`'s.
"""
