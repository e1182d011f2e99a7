"""`export`: which programs a model has, their symbolic shapes, and the files."""

import importlib.util
import json
import os
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export
from safetensors.flax import save_file

from zoo.build import by_layer
from zoo.embed import PADDED, Embedder, embedder
from zoo.errors import UserError, did_you_mean, family_of, shown
from zoo.export.readme import readme
from zoo.extras import install
from zoo.generate import checks
from zoo.generate.steps import decode_step, encodes, prefill, with_caches_for
from zoo.hub.ids import folder_of
from zoo.layers.stack import as_loop
from zoo.saving import load
from zoo.storage import check_folder, replacing
from zoo.tree import flatten, unflatten, variables

PLATFORMS = ("cpu", "tpu", "cuda")
COLUMNS = 1024  # Tokens that a cache holds, where the model has no limit, or a higher one.
FILES = ("weights.safetensors", "signature.json", "README.md")


class Program(NamedTuple):
  """A function to export, and the shapes of what follows the weights in its arguments.

  function: (weights, *arguments) -> a dict of arrays.
  arguments: name -> `jax.ShapeDtypeStruct`, or a dict of them.
  """

  function: Callable
  arguments: Mapping[str, Any]


def export(
  source: str | os.PathLike,
  folder: str | os.PathLike,
  *,
  what: str | None = None,
  platforms: Sequence[str] = PLATFORMS,
  max_length: int | None = None,
  dtype: Any = None,
  ignore: Collection[str] = (),
) -> dict[str, Any]:
  """Writes a model as `jax.export` files that run without the zoo; see `zoo.export`.

  Args:
    source: a run, a published model's folder, or a hub id, as of `zoo.load`.
    folder: where to; made if it is not there.
    what: "embed" or "generate"; by default "generate" for a model that predicts tokens.
    platforms: what the programs are to run on, of cpu, tpu and cuda.
    max_length: tokens that a program takes at most; of a model that writes, prompt and answer together: the length of
      its cache. By default the model's, and at most 1,024 for a cache.
    dtype: of the weights, e.g. "bfloat16".
    ignore: entries of a published model's config.json to leave unread, as of `zoo.load`.

  Returns:
    what signature.json holds.

  Raises:
    UserError: the model does neither, or an option is out of its range; nothing is written then.

  >>> import zoo
  >>> model = zoo.build("gpt", vocab_size=7, max_length=8, dim=8, depth=1, num_heads=2)
  >>> zoo.save("gpt_to_export", model, model.init(jax.random.key(0), *model.example())["params"])
  >>> signature = export("gpt_to_export", "exported_gpt", platforms=["cpu"])
  >>> sorted(signature["programs"]), signature["programs"]["prefill"]["arguments"]["tokens"]
  (['decode', 'prefill'], {'dtype': 'int32', 'shape': ['batch', 'length']})
  """
  if importlib.util.find_spec("flatbuffers") is None:
    raise UserError(f"jax.export writes with flatbuffers, which is not installed. Install it: {install('export')}.")
  platforms = tuple(platforms)
  if unknown := [name for name in platforms if name not in PLATFORMS]:
    hint = did_you_mean(str(unknown[0]), PLATFORMS)
    raise UserError(f"platforms has {shown(unknown[0])}.{hint} Choose of: {', '.join(PLATFORMS)}.")
  if not platforms:
    raise UserError(f"platforms is empty. Choose of: {', '.join(PLATFORMS)}.")
  if max_length is not None:
    checks.number("max_length", max_length, integer=True, minimum=1)
  if what not in (None, "embed", "generate"):
    raise UserError(f"what is {shown(what)}. It must be 'embed' or 'generate'.")
  folder = pathlib.Path(folder)
  check_folder(folder, "Name a folder for the files.")
  if folder.is_dir() and folder.samefile(folder_of(source)):
    raise UserError(f"{folder} is the model's own folder. Name another one for the exported files.")
  programs, weights, notes = _programs(source, what, max_length, dtype, ignore)
  shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in weights.items()}
  exported = {name: _exported(name, program, shapes, platforms) for name, program in programs.items()}
  signature = {
    "format": 1,
    "jax": jax.__version__,
    "platforms": list(platforms),
    "weights": "weights.safetensors",
    **notes,
    "programs": {name: _signature(name, program, exported[name]) for name, program in programs.items()},
  }
  folder.mkdir(parents=True, exist_ok=True)
  for name, program in exported.items():
    _write(folder / f"{name}.jax", bytes(program.serialize()))
  with replacing(folder / "weights.safetensors") as path:
    save_file({name: jnp.asarray(x) for name, x in weights.items()}, path)
  _write(folder / "signature.json", (json.dumps(signature, indent=2) + "\n").encode())
  _write(folder / "README.md", readme(signature).encode())
  return signature


def _programs(
  source: str | os.PathLike, what: str | None, max_length: int | None, dtype: Any, ignore: Collection[str]
) -> tuple[dict[str, Program], dict[str, jax.Array], dict[str, Any]]:
  """The programs, the weights, and more for the signature."""
  if what != "embed":
    model, params = load(source, dtype=dtype, ignore=ignore)
    if getattr(model, "decodes", False):
      return writing(model, params, max_length)
    if what == "generate":
      checks.decodes(model)
  return embedding(embedder(source, dtype=dtype, ignore=ignore), max_length)


def writing(
  model: Any, params: Any, max_length: int | None
) -> tuple[dict[str, Program], dict[str, jax.Array], dict[str, Any]]:
  """The programs `prefill` and `decode` of a model that predicts tokens -> programs, weights by name, notes.

  prefill: tokens int32 and valid bool [batch, length], or features of sounds -> logits float32 [batch, vocab_size],
  position int32 [batch], state. decode: state, token and position int32 [batch] -> logits, state.

  Raises:
    UserError: max_length is above the model's.
  """
  columns = min(COLUMNS, model.max_length or COLUMNS) if max_length is None else max_length
  if model.max_length is not None and columns > model.max_length:
    raise UserError(f"max_length is {columns}, the model takes {model.max_length} tokens. Lower it.")
  answers = encodes(model)
  cached = with_caches_for(as_loop(model), columns)
  weights = flatten(by_layer(params))
  limit = model.encoder.max_length if answers else columns
  batch, length = _symbols("batch, length", [] if limit is None else [f"length <= {limit}"])

  def read(weights: Any, tokens: jax.Array, valid: jax.Array) -> dict[str, Any]:
    options = {"room": columns - 1} if answers else {"room": 0}
    logits, position, state = prefill(cached, unflatten(weights), tokens, valid, **options)
    state = flatten(state)
    return {"logits": logits, "position": position, "state": state if answers else _widened(state, columns)}

  def write(weights: Any, state: Any, token: jax.Array, position: jax.Array) -> dict[str, Any]:
    logits, state = decode_step(cached, unflatten(weights), unflatten(state), token, position)
    return {"logits": logits, "state": flatten(state)}

  source = model.example()[0]
  if answers and not jnp.issubdtype(source.dtype, jnp.integer):  # Features of sounds, all of one length.
    (batch,) = _symbols("batch", [])
    rows = jax.eval_shape(lambda x: model.apply(variables(params), x, method="encode"), source).shape[1]
    sources = {"tokens": _spec((batch, *source.shape[1:]), source.dtype), "valid": _spec((batch, rows), bool)}
  else:
    sources = {"tokens": _spec((batch, length), jnp.int32), "valid": _spec((batch, length), bool)}
  specs = {name: _spec(x.shape, x.dtype) for name, x in weights.items()}
  state = jax.eval_shape(read, specs, *sources.values())["state"]
  if not answers:  # No argument of decode has that length, which would then have to be known.
    (batch,) = _symbols("batch", [])
    state = {name: _spec((batch, *x.shape[1:]) if x.shape else (), x.dtype) for name, x in state.items()}
  newest = {"token": _spec((batch,), jnp.int32), "position": _spec((batch,), jnp.int32)}
  programs = {"prefill": Program(read, sources), "decode": Program(write, {"state": state, **newest})}
  notes = {"does": "generate", "family": family_of(model), "vocab_size": model.vocab_size, "max_length": columns}
  return programs, weights, notes | ({"start_token": model.start_token} if answers else {})


def embedding(
  make: Embedder, max_length: int | None
) -> tuple[dict[str, Program], dict[str, jax.Array], dict[str, Any]]:
  """The programs that embed texts, images or both -> programs, weights by name, notes.

  They take tokens int32 and valid bool [batch, length], or images [batch, height, width, channels], and return
  float32 [batch, dim].

  Raises:
    UserError: the model pools without the prompt, whose length a program does not know.
  """
  programs: dict[str, Program] = {}
  notes: dict[str, Any] = {"does": "embed", "family": family_of(make.model)}
  example = make.model.example()
  texts, images = make.takes("text"), make.takes("image")
  name = lambda kind: f"embed_{kind}" if texts and images else "embed"
  if texts:
    limits = [
      n for n in (max_length, getattr(make.model, "max_length", None), make.encoder.max_length) if n is not None
    ]
    most = min(limits, default=None)
    batch, length = _symbols("batch, length", [] if most is None else [f"length <= {most}"])
    if notes["family"] in PADDED:
      length = most  # A text is pooled at the last position: all have the full length.
    if make.encoder.uses_prompt_length:
      raise UserError(f"{make.folder} pools without the prompt, and a program does not know its length. Use embed.")
    run = make.text_function()
    arguments = {"tokens": _spec((batch, length), jnp.int32), "valid": _spec((batch, length), bool)}

    def embed_text(weights: Any, tokens: jax.Array, valid: jax.Array) -> dict[str, Any]:
      batch = {"tokens": tokens, "valid": valid, "prompt_length": np.int32(0)}
      return {"vectors": run(_as_model_has(weights, make.params), batch)}

    programs[name("text")] = Program(embed_text, arguments)
    notes |= {"max_length": most} if most is not None else {}
  if images:
    (batch,) = _symbols("batch", [])
    run_image = make.image_function()
    image = jax.tree.map(lambda x: _spec((batch, *x.shape[1:]), x.dtype), example[0])

    def embed_image(weights: Any, image: Any) -> dict[str, Any]:
      return {"vectors": run_image(_as_model_has(weights, make.params), {"image": image})}

    programs[name("image")] = Program(embed_image, {"image": image})
  return programs, flatten(make.params), notes


def _as_model_has(weights: Mapping[str, Any], params: Any) -> Any:
  """The tree of `params` with the arrays of these names."""
  return jax.tree.unflatten(jax.tree.structure(params), [weights[name] for name in flatten(params)])


def _widened(state: Mapping[str, Any], columns: int) -> dict[str, Any]:
  """A decoder's cache with room up to `columns`; of a symbolic length, so it is written into an empty one."""
  axes = {"keys": 2, "values": 2, "positions": 1}

  def widened(name: str, array: Any) -> Any:
    axis = axes.get(name.rpartition("/")[2])
    if axis is None:
      return array
    shape = (*array.shape[:axis], columns, *array.shape[axis + 1 :])
    empty = jnp.full(shape, -1 if name.endswith("positions") else 0, array.dtype)
    return jax.lax.dynamic_update_slice(empty, array, (0,) * array.ndim)

  return {name: widened(name, array) for name, array in state.items()}


def _symbols(names: str, constraints: Sequence[str]) -> Sequence[Any]:
  """Symbolic sizes of arrays."""
  return jax_export.symbolic_shape(names, constraints=constraints)


def _spec(shape: Sequence[Any], dtype: Any) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(tuple(shape), dtype)


def _exported(name: str, program: Program, weights: Mapping[str, Any], platforms: Sequence[str]) -> Any:
  try:
    return jax_export.export(jax.jit(program.function), platforms=platforms)(weights, *program.arguments.values())
  except (TypeError, ValueError, NotImplementedError, jax.errors.JAXTypeError) as error:
    raise UserError(f"{name} cannot be exported with shapes of any size: {error}") from error


def _signature(name: str, program: Program, exported: Any) -> dict[str, Any]:
  shape = lambda leaf: [size if isinstance(size, int) else str(size) for size in leaf.shape]
  about = lambda leaf: {"dtype": str(leaf.dtype), "shape": shape(leaf)}
  results = jax.tree.unflatten(exported.out_tree, [about(leaf) for leaf in exported.out_avals])
  arguments = {key: jax.tree.map(about, value) for key, value in program.arguments.items()}
  return {"file": f"{name}.jax", "arguments": arguments, "results": results}


def _write(path: pathlib.Path, content: bytes) -> None:
  with replacing(path) as temporary:
    temporary.write_bytes(content)
