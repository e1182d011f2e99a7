"""The built-in sharding strategies of parameters: rules of `zoo.sharding`, as data.

A rule is a pattern and placements of the last dimensions, tried in turn; a rule of one placement must divide.
"""

# Each device has some of the experts of a mixture: https://arxiv.org/abs/2101.03961, section 3. A mesh without
# the axis "expert" leaves them to the other rules.
EXPERTS = (("experts/(up|gate|down)/kernel", [("expert", None, None)]),)

# Megatron's split (https://arxiv.org/abs/1909.08053): heads and hidden units over "model", one all-reduce per sublayer.
TENSOR = (
  ("experts/(up|gate)/kernel", [("expert", None, "model")]),  # [experts, dim, mlp_dim]
  ("experts/down/kernel", [("expert", "model", None)]),  # [experts, mlp_dim, dim]
  ("(query|key|value)/kernel", [(None, "model", None)]),  # [dim, heads, head_dim]
  ("(query|key|value)/bias", [("model", None)]),  # [heads, head_dim]
  ("out/kernel", [("model", None, None)]),  # [heads, head_dim, dim]
  ("(up|gate)/kernel", [(None, "model")]),  # [dim, mlp_dim]
  ("(up|gate)/bias", [("model",)]),  # [mlp_dim]
  ("down/kernel", [("model", None)]),  # [mlp_dim, dim]
  ("from_(input|hidden)/kernel", [(None, None, "model")]),  # [inputs, gates, hidden_dim]
  ("from_(input|hidden)/bias", [(None, "model")]),  # [gates, hidden_dim]
  ("embed/embedding", [("model", None), (None, "model"), ()]),  # [vocab_size, dim]
)

# name -> rules, and the mesh axis that shards the largest remaining dimension
STRATEGIES = {
  "replicated": (EXPERTS, None),
  "fsdp": (EXPERTS, "data"),
  "tensor": (TENSOR, None),
  "fsdp+tensor": (TENSOR, "data"),
}
