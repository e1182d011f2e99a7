import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from zoo.perf.collectives import Collective, collectives
from zoo.sharding import make_mesh


def test_finds_what_a_compiled_program_sends_and_how_often():
  mesh = make_mesh({"data": 4, "model": 2})
  place = lambda *spec: NamedSharding(mesh, P(*spec))

  def layers(x, up, down):
    def layer(x, kernels):
      return jax.lax.with_sharding_constraint(x @ kernels[0] @ kernels[1], place("data")), None

    return jax.lax.scan(layer, x, (up, down))[0]

  arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((8, 16), (3, 16, 32), (3, 32, 16))]
  places = (place("data"), place(None, None, "model"), place(None, "model"))
  text = jax.jit(layers, in_shardings=places, out_shardings=place("data")).lower(*arrays).compile().as_text()
  # Each of three layers adds up what its two halves of the hidden units made of a quarter of the rows.
  assert collectives(text, mesh.shape) == [Collective("all-reduce", 2 * 16 * 4, 3, 2, ("model",))]


def test_what_a_shard_map_sends_at_once_is_told_apart():
  mesh = make_mesh({"data": 2, "sequence": 4})

  def around(x, y):
    def turn(both, _):
      return jax.tree.map(lambda x: jax.lax.ppermute(x, "sequence", [(i, (i + 1) % 4) for i in range(4)]), both), None

    return jax.lax.scan(turn, (x, y), length=3)[0]

  spread = jax.shard_map(around, mesh=mesh, in_specs=P("data", "sequence"), out_specs=P("data", "sequence"))
  arrays = [jax.ShapeDtypeStruct((2, 4, size), jnp.float32) for size in (5, 7)]
  traffic = collectives(jax.jit(spread).lower(*arrays).compile().as_text(), mesh.shape)
  assert sorted(traffic) == [Collective("collective-permute", size * 4, 3, 4, ("sequence",)) for size in (5, 7)]


PROGRAM = """HloModule jit_step, is_scheduled=true

%start.1 (a: bf16[1,128]) -> (bf16[1,128], bf16[8,128]) {
  %a = bf16[1,128]{1,0:T(8,128)} parameter(0)
  %gathered = bf16[8,128]{1,0:T(8,128)S(1)} all-gather(%a), channel_id=7, replica_groups=GROUPS, dimensions={0}
  ROOT %begun = (bf16[1,128]{1,0}, bf16[8,128]{1,0}) custom-call(%gathered), custom_call_target="AsyncCollectiveStart"
}

%end.1 (a: bf16[1,128]) -> bf16[8,128] {
  %a.1 = bf16[1,128]{1,0} parameter(0)
  %gathered.1 = bf16[8,128]{1,0} all-gather(%a.1), channel_id=7, replica_groups=GROUPS, dimensions={0}
  ROOT %done = bf16[8,128]{1,0} custom-call(%gathered.1), custom_call_target="AsyncCollectiveDone"
}

%all-reduce-scatter.3 (g: f32[64,4]) -> f32[8,4] {
  %g = f32[64,4]{1,0} parameter(0)
  %summed = f32[64,4]{1,0} all-reduce(%g), channel_id=9, replica_groups=GROUPS, to_apply=%add
  ROOT %own = f32[8,4]{1,0} dynamic-slice(%summed, %zero, %zero), dynamic_slice_sizes={8,4}
}

%body.2 (s: (s32[], bf16[1,128])) -> (s32[], bf16[1,128]) {
  %s = (s32[], bf16[1,128]{1,0}) parameter(0)
  %begun.2 = (bf16[1,128]{1,0}, bf16[8,128]{1,0}) fusion(%s), kind=kCustom, calls=%start.1
  %whole = bf16[8,128]{1,0} fusion(%begun.2), kind=kCustom, calls=%end.1
  ROOT %next = (s32[], bf16[1,128]{1,0}) tuple(%s, %whole)
}

%condition.2 (s.1: (s32[], bf16[1,128])) -> pred[] {
  %limit = s32[]{:T(128)} constant(12)
  ROOT %less = pred[] compare(%s.1, %limit), direction=LT
}

ENTRY %main.5 (x: bf16[1,128]) -> f32[8,4] {
  %x = bf16[1,128]{1,0} parameter(0)
  %first = bf16[8,128]{1,0} fusion(%x), kind=kCustom, calls=%end.1
  %loop = (s32[], bf16[1,128]{1,0}) while(%x), condition=%condition.2, body=%body.2
  %sent = f32[16]{0} collective-permute(%x), channel_id=3, source_target_pairs={{0,2},{2,4},{4,0},{1,3},{3,5},{5,1}}
  %both = (f32[10]{0}, f32[6]{0}) all-reduce-start(%x, %x), channel_id=4, replica_groups={{0,1},{2,3}}, to_apply=%add
  %alone = f32[16]{0} all-reduce(%x), channel_id=5, replica_groups={{0},{1}}, to_apply=%add
  ROOT %part = f32[8,4]{1,0} fusion(%loop), kind=kCustom, calls=%all-reduce-scatter.3
}
"""


@pytest.mark.parametrize(
  "groups", ["[2,8]<=[8,2]T(1,0)", "{{0,2,4,6,8,10,12,14},{1,3,5,7,9,11,13,15}}", "mesh['a'=8,'b'=2] {'a'}"]
)
def test_reads_programs_as_they_are_for_tpus(groups):
  traffic = collectives(PROGRAM.replace("GROUPS", groups), {"data": 8, "model": 2})
  assert sorted(traffic) == [
    Collective("all-gather", 8 * 128 * 2, 13, 8, ("data",)),  # Once, and at both ends of twelve rounds.
    Collective("all-reduce", 16 * 4, 1, 2, ("model",)),
    Collective("collective-permute", 16 * 4, 1, 3, ("data",)),
    Collective("reduce-scatter", 64 * 4 * 4, 1, 8, ("data",)),
  ]


@pytest.mark.parametrize(
  "kind, sent",
  [("all-gather", 2 * 300), ("reduce-scatter", 2 * 300), ("all-reduce", 2 * 600), ("collective-permute", 2 * 400)],
)
def test_what_a_device_sends(kind, sent):
  assert Collective(kind, 400, 2, 4, ("data",)).sent == sent


def test_what_hosts_exchange_between_slices_is_found():
  line = (
    "  %send = (bf16[96,8,128]{2,1,0:T(8,128)}, u32[], token[]) send(%a, %b), channel_id=3, is_host_transfer=true, "
    'frontend_attributes={_xla_megascale_target="{1,2}x{0:7}",_xla_megascale_transfer_type="ALL_REDUCE"}'
  )
  text = "ENTRY %main (a: f32[]) -> f32[] {\n" + line + "\n}\n"
  traffic = collectives(text, {"slice": 2, "data": 8}, [0] * 8 + [1] * 8)
  assert traffic == [Collective("all-reduce", 96 * 8 * 128 * 2, 1, 2, ("slice",), 2)]
  assert traffic[0].sent == 0 and traffic[0].sent_across == 96 * 8 * 128 * 2


@pytest.mark.parametrize(
  "line, found",
  [
    ("((f32[8]{0}, bf16[64]{0}), (f32[2]{0}, bf16[16]{0})) reduce-scatter-start(%a, %b)", ("reduce-scatter", 160)),
    ("((f32[2]{0}, bf16[16]{0}), (f32[8]{0}, bf16[64]{0})) all-gather-start(%a, %b)", ("all-gather", 160)),
    ("(f32[2]{0}, f32[8]{0}) all-gather-start(%a)", ("all-gather", 32)),
    ("(f32[8]{0}, f32[8]{0}, u32[], u32[]) collective-permute-start(%a)", ("collective-permute", 32)),
    ("(f32[8]{0}, bf16[64]{0}) all-reduce-start(%a, %b)", ("all-reduce", 160)),
    ("f32[2]{0} reduce-scatter(%a)", ("reduce-scatter", 32)),
  ],
)
def test_what_is_begun_names_what_it_reads_and_what_comes_of_it(line, found):
  rest = "source_target_pairs={{0,1},{1,2},{2,3},{3,0}}" if "permute" in line else "replica_groups={{0,1,2,3}}"
  text = f"ENTRY %main (a: f32[]) -> f32[] {{\n  %x = {line}, channel_id=1, {rest}\n}}\n"
  (one,) = collectives(text, {"data": 4})
  assert (one.kind, one.bytes) == found and one.devices == 4


PRODUCT = """HloModule jit_step, is_scheduled=true

%async_collective_fusion.5 (p: bf16[1,128]) -> bf16[8,128] {
  %p = bf16[1,128]{1,0} parameter(0)
  ROOT %meanwhile = bf16[8,128]{1,0} all-gather(%p), channel_id=7, replica_groups={{0,1,2,3}}, dimensions={0}
}

%end.1 (a: bf16[1,128]) -> bf16[8,128] {
  %a.1 = bf16[1,128]{1,0} parameter(0)
  ROOT %gathered.1 = bf16[8,128]{1,0} all-gather(%a.1), channel_id=7, replica_groups={{0,1,2,3}}, dimensions={0}
}

%body.2 (s: (bf16[1,128], u32[])) -> (bf16[1,128], u32[]) {
  %s = (bf16[1,128]{1,0}, u32[]) parameter(0)
  %passed = bf16[1,128]{1,0} get-tuple-element(%s), index=0
  %at = u32[]{:T(128)} get-tuple-element(%s), index=1
  %two = u32[]{:T(128)} constant(2)
  %next = u32[]{:T(128)} add(%at, %two), control-predecessors={%passed}
  %work = bf16[8,128]{1,0} fusion(%passed), kind=kCustom, calls=%async_collective_fusion.5
  %on = bf16[1,128]{1,0} collective-permute(%passed), channel_id=3, source_target_pairs={{0,1},{1,2},{2,3},{3,0}}
  ROOT %both = (bf16[1,128]{1,0}, u32[]) tuple(%on, /*index=1*/%next)
}

%condition.2 (c: (bf16[1,128], u32[])) -> pred[] {
  %c = (bf16[1,128]{1,0}, u32[]) parameter(0)
  %limit = u32[]{:T(128)} constant(16)
  %counted = u32[]{:T(128)} get-tuple-element(%c), index=1
  ROOT %less = pred[] compare(%counted, %limit), direction=LT
}

ENTRY %main.5 (x: bf16[1,128]) -> bf16[8,128] {
  %x = bf16[1,128]{1,0} parameter(0)
  %from = u32[]{:T(128)} constant(FIRST)
  %given = (bf16[1,128]{1,0}, u32[]) tuple(%x, %from)
  %loop = (bf16[1,128]{1,0}, u32[]) while(%given), condition=%condition.2, body=%body.2
  ROOT %done = bf16[8,128]{1,0} fusion(%x), kind=kCustom, calls=%end.1
}
"""


@pytest.mark.parametrize("first, rounds", [(0, 8), (1, 8), (6, 5)])
def test_loops_run_as_often_as_they_count_and_what_they_hide_runs_once(first, rounds):
  gathered, passed = sorted(collectives(PRODUCT.replace("FIRST", str(first)), {"data": 4}))
  assert gathered == Collective("all-gather", 8 * 128 * 2, 1, 4, ("data",))
  assert passed == Collective("collective-permute", 128 * 2, rounds, 4, ("data",))
