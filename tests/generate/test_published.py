import json

import pytest

import zoo
from tests.filled import filled
from zoo.generate.__main__ import main

MODEL = zoo.build("gpt", vocab_size=260, max_length=40, dim=6, depth=1, num_heads=2)


@pytest.fixture
def folder(tmp_path):
  zoo.save_hf(tmp_path, MODEL, filled(MODEL, *MODEL.example(), seed=1))
  return tmp_path


def state(folder, file, **entries):
  path = folder / file
  held = json.loads(path.read_text()) if path.exists() else {}
  path.write_text(json.dumps(held | entries))


def run(folder, *flags):
  return main(["--model", str(folder), "--tokenizer", "bytes", "--prompt", "Hi", "--max-new-tokens", "5", *flags])


def test_what_is_passed_over_is_told_in_a_line(folder, recwarn, capsys):
  state(folder, "config.json", is_gpt=True)
  state(folder, "generation_config.json", new_fashion=3)
  assert run(folder) == 0 and capsys.readouterr().out.startswith("Hi")
  told = [str(one.message) for one in recwarn]
  assert [line.split(": ignored")[0].rpartition("has ")[2] for line in told] == ["is_gpt=True", "new_fashion=3"]


def test_what_is_refused_is_left_unread_by_the_flag_that_the_message_offers(folder, capsys):
  state(folder, "config.json", scale_attn_weights=False)
  state(folder, "generation_config.json", guidance_scale=1.5)
  with pytest.raises(SystemExit):
    run(folder)
  assert "--ignore=scale_attn_weights" in capsys.readouterr().err
  with pytest.raises(SystemExit):
    run(folder, "--ignore=scale_attn_weights")
  assert "--ignore=guidance_scale" in capsys.readouterr().err
  assert run(folder, "--ignore=scale_attn_weights,guidance_scale") == 0
  with pytest.raises(SystemExit):
    run(folder, "--ignore=guidance")
  assert "ignore names 'guidance', which is not in config.json, generation_config.json" in capsys.readouterr().err
