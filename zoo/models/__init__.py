"""One family per file: a class (the forward pass), a function (the parts it is made of), VARIANTS and PAPER.

To add one, write `zoo/models/<family>.py` with
  class Family(Model)             `__call__`, its parts as fields, and `example(batch_size)`: inputs for `init`
  def <family>(*, dim: int, ..., **options: Unpack[Compute])
                                  sizes by keyword with their types, checked here; returns the class with its parts
  VARIANTS                        {name: sizes as published}
  PARAMETERS                      {name: published number of parameters}
  PAPER                           {"title", "authors", "year", "url"}
A model that predicts tokens inherits `PredictsTokens` of zoo/models/model.py, one with heads that classify `TokenHeads`
of zoo/layers/heads.py. Options that several families share are a TypedDict that has the entries of
`zoo.layers.compute.Compute` too. Nothing else lists families; tests/models/test_published.py counts the parameters.
"""
