"""The Flax classes that transformers 5 removed, under their old names: what was written for them keeps running.

`from transformers import FlaxCLIPTextModel` becomes `from zoo.compat import FlaxCLIPTextModel`. Parameters are trees in
the old names, as a flax_model.msgpack holds them; arguments, outputs and their order are the old ones. Beneath lies a
model of the zoo, and `save_pretrained` writes what `zoo.load` and torch transformers read. notebooks/compat.py shows
the text encoders of a FLUX pipeline. `install()` puts the classes where `from transformers import ...` finds them.

What differs: a call is compiled; logits and what CLIP compares are float32 in every dtype; random parameters start as
the zoo's do, and draws of `generate` are the zoo's; hidden states and attentions are in the plain tuple of
`return_dict=False` too; a window of Mistral holds `sliding_window` tokens as torch's does, where it held one more.
Old names and signatures: transformers 4.57.1, src/transformers/models/*/modeling_flax_*.py.
"""

from zoo.compat.config import Config
from zoo.compat.families import old_names
from zoo.compat.installing import install, uninstall
from zoo.compat.outputs import Output

globals().update(old_names())
__all__ = ["Config", "Output", "install", "uninstall", *old_names()]  # noqa: PLE0604
