"""Sums in fewer bits than 32 on the way to the gradients of parameters: found in a program, nothing is run."""

from jax.extend.core import Literal

NARROW = ("bfloat16", "float16")
SUMS = ("reduce_sum", "cumsum", "reduce_window_sum", "scatter-add", "scatter_add")
# What hands numbers on, or adds up a few of them: what they were summed up in stands further up.
PASSES_ON = """add add_any broadcast_in_dim concatenate convert_element_type copy copy_p dynamic_update_slice
  expand_dims mul neg pad pbroadcast psum psum2 psum_invariant pvary reduce_scatter reshape rev
  select_n sharding_constraint slice squeeze transpose""".split()


def narrow(variable):
  return str(getattr(variable.aval, "dtype", "")) in NARROW


def programs(equation):
  """The programs that an equation runs; what a scatter does with two numbers is none."""
  if "update_jaxpr" in equation.params:
    return
  for name, value in equation.params.items():
    if name == "cond_jaxpr":  # Whether a loop goes on: nothing of it reaches its results.
      continue
    for item in value if isinstance(value, tuple | list) else (value,):
      program = getattr(item, "jaxpr", item)
      if hasattr(program, "eqns"):
        yield program


def narrow_sums(program):
  """Every sum in the program whose result has fewer bits: "scatter-add bfloat16[23,6]"."""
  for equation in program.eqns:
    if equation.primitive.name in SUMS and narrow(equation.outvars[0]):
      yield f"{equation.primitive.name} {equation.outvars[0].aval}"
    for inner in programs(equation):
      yield from narrow_sums(inner)


def narrow_origins(program, outputs, outer=lambda index: set()):
  """What computed numbers of fewer bits that are only handed on from there to `outputs` of the program.

  outer: the origins of an input of the program, by its index.
  """

  def back(equation, before):
    return lambda index: left.append(equation.invars[index + before]) or set()

  made_by = {variable: (equation, i) for equation in program.eqns for i, variable in enumerate(equation.outvars)}
  visited, origins, left = set(), set(), list(outputs)
  while left:
    variable = left.pop()
    if isinstance(variable, Literal) or variable in visited:
      continue
    visited.add(variable)
    if variable not in made_by:
      if variable in program.invars:
        origins |= outer(program.invars.index(variable))
      continue
    equation, i = made_by[variable]
    inner = list(programs(equation))
    for one in inner:
      before = len(equation.invars) - len(one.invars)  # A cond's index comes before what its branches are given.
      origins |= narrow_origins(one, [one.outvars[i]], back(equation, before))
    if equation.primitive.name == "optimization_barrier":
      left.append(equation.invars[i])
    elif not inner and equation.primitive.name in PASSES_ON:
      left += equation.invars
    elif not inner and narrow(variable):
      origins.add(f"{equation.primitive.name} {variable.aval}")
  return origins
