"""One family per file: a class (the forward pass), a function (the parts it is made of), VARIANTS and PAPER.

To add one, write `zoo/models/<family>.py` with
  class Family(Model)             `__call__`, its parts as fields, and `example(batch_size)`: inputs to start it with
  def <family>(*, dim: int, ...)  sizes by keyword with their types, checked here; returns the class with its parts
  VARIANTS                        {name: sizes as published}
  PARAMETERS                      {name: how many parameters that variant has as published}
  PAPER                           {"title", "authors", "year", "url"}
Nothing else lists families; tests/models/test_published.py counts the parameters.
"""
