"""Layers that model families are composed of. They are passed in as values; a block or a model copies its own.

Glossary (one word per idea, everywhere in the zoo):
  dim            width of the residual stream; `depth` its number of layers; `mlp_dim` width inside an MLP
  num_heads      query heads, each `head_dim` wide; `num_kv_heads` key and value heads that groups of them share
  tokens         int32 [batch, length]; `vocab_size` of them exist; `max_length` positions exist
  image          float32 [batch, height, width, channels] in [-1, 1]; `patch_size` pixels make one side of a patch
  valid          bool [batch, length], True = a real token, False = padding
  segment_ids    int32 [batch, length]: which of the texts packed into one row a token belongs to
  positions      int32 [batch or 1, length]: where each token stands in its sequence
  info           `SequenceInfo`: valid, positions and segment_ids of one input, as one value; `context_info` a context's
  mask           a rule, function of (query_positions, key_positions) -> bool: may this query see that key?
  bias           added to attention logits: [batch or 1, heads or 1, queries, keys], or a function of positions
  kernel         function of query, key and value that computes attention; in a parameter path: weights of a dense layer
  train          True while training: dropout and drop-path act, with the rng collection "dropout"
  dtype          of activations; parameters are always float32, and so is every softmax and every sum of gradients

Parameter paths end in `query|key|value|out/kernel`, `up|gate|down/kernel`, `embedding`, `scale`, `bias`.
"""
