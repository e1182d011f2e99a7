"""Conversion tables between the zoo and the hub, both ways: one file per family, named as in zoo/models.

A file, e.g. `zoo/convert/bert.py`, holds

  MODEL_TYPES   the values of `model_type` in a config.json that it reads
  HEADS         head -> class names of transformers; the first is the one we write, None is the headless model
  sizes(options, head, tensors)   -> arguments of `zoo.build` from an `options.Options`; `tensors` is name -> array, for
                what a config.json does not say
  config(sizes)                   -> the entries of a config.json, model_type among them
  rules(sizes)                    -> rules of zoo/convert/rules/layouts.py, for the names that the reference's class
  saves

where `sizes` are all arguments of the family's function. A rule names an array of a collection that rows share, such as
the statistics of a batch normalisation, as `batch_stats/...` (`batch_norm` of layouts.py). Where the layout needs them,
it also holds

  PREFIX        optional prefix of names: `bert.`
  RENAMED       [(regular expression, replacement)]: other spellings in files
  TIED          name -> name of the tensor that it must equal if a file has both and no rule for these sizes names it
  SPARE         names that files may have although nothing reads them with these sizes
  IGNORED       regular expressions of names that are not parameters, or unused parameters
  generation(sizes)   -> the entries of a generation_config.json, for users of the exported folder
  head_of(sizes), with_head(sizes, head)   -> the head, the sizes with another one, if it is not sizes["head"]

The file's name registers it.
"""
