"""The Flax classes that transformers 5 removed, under their old names, so that existing code keeps running.

`from transformers import FlaxCLIPTextModel` becomes `from zoo.compat import FlaxCLIPTextModel`. Parameters are trees
with the old names, as in a flax_model.msgpack; arguments, outputs and their order are the old ones. They wrap a
model of the zoo, and `save_pretrained` writes files for `zoo.load` and torch transformers. notebooks/compat.py shows
the text encoders of a FLUX pipeline. `install()` puts the classes where `from transformers import ...` finds them.

Differences: a call is compiled; logits and CLIP's embeddings are float32 in every dtype; random parameters have
the zoo's initialisation, and `generate` the zoo's sampling; hidden states and attentions are in the tuple of
`return_dict=False` too; Mistral's window has `sliding_window` tokens as in torch, instead of one more.
Old names and signatures: transformers 4.57.1, src/transformers/models/*/modeling_flax_*.py.
"""

from zoo.compat.config import Config
from zoo.compat.families import old_names
from zoo.compat.installing import install, uninstall
from zoo.compat.outputs import Output

globals().update(old_names())
__all__ = ["Config", "Output", "install", "uninstall", *old_names()]  # noqa: PLE0604
