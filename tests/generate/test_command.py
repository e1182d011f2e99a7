import io
import json
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import zoo
from tests.filled import filled
from zoo.generate.__main__ import main

MODEL = zoo.build("gpt", vocab_size=260, max_length=60, dim=6, depth=1, num_heads=2)
ANSWERS = zoo.build("t5", vocab_size=260, dim=6, depth=1, num_heads=2, head_dim=3)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  options = {}
  for name, model in (("gpt", MODEL), ("t5", ANSWERS)):
    options[name] = tmp_path_factory.mktemp(name)
    zoo.save(options[name], model, filled(model, *model.example(), seed=1))
  return options


def text_of(model, folder, tokens, **options):
  encoder = zoo.load_tokenizer("bytes")
  out = zoo.generate(model, zoo.load(folder)[1], np.array([tokens]), eos=encoder.eos, **options)
  new = np.asarray(out)[0, 1 if model is ANSWERS else len(tokens) :].tolist()
  return encoder.decode(new[: new.index(encoder.eos)] if encoder.eos in new else new, special=False)


def run(folder, *flags):
  return main(["--model", str(folder), "--tokenizer", "bytes", "--max-new-tokens", "17", *flags])


def test_prints_the_prompt_and_what_follows(folders, capsys):
  encoder = zoo.load_tokenizer("bytes")
  assert run(folders["gpt"], "--prompt", "Hi", "--temperature", "1.5", "--top-k", "90", "--seed", "3") == 0
  key = jax.random.fold_in(jax.random.key(3), 0)
  options = dict(max_new_tokens=17, temperature=1.5, top_k=90, rng=key)
  wanted = text_of(MODEL, folders["gpt"], [encoder.eos, *encoder.encode("Hi")], **options)
  assert capsys.readouterr().out == f"Hi{wanted}\n" and len(wanted) > 3


def test_every_line_of_standard_input_is_a_prompt(folders, capsys, monkeypatch):
  monkeypatch.setattr("sys.stdin", io.StringIO("one\ntwo\n"))
  run(folders["gpt"])
  lines = capsys.readouterr().out
  assert lines.startswith("one") and "\ntwo" in lines


@pytest.mark.parametrize("beams", [1, 2])
def test_an_answer_stands_alone(folders, capsys, beams):
  encoder = zoo.load_tokenizer("bytes")
  run(folders["t5"], "--prompt", "What?", "--num-beams", str(beams))
  tokens = encoder(["What?"])["tokens"][0]
  wanted = text_of(ANSWERS, folders["t5"], tokens, max_new_tokens=17, num_beams=beams)
  assert capsys.readouterr().out == f"{wanted}\n"


@pytest.mark.parametrize(
  "flags, message",
  [
    (["--prompt", "Hi"], "Error: the following arguments are required: --model. --help lists the flags.\n"),
    (["--model", "", "--prompt", "Hi"], "Error: --model is empty. Give it a value, or leave it out."),
    (["--model", "nowhere/to/be/found", "--prompt", "Hi"], "Error: nowhere/to/be/found does not exist."),
    (["--model", "GPT", "--seed", str(2**63)], f"Error: argument --seed: {2**63} has more than 64 bits."),
    (
      ["--model", "GPT", "--tokenizer", "bytes", "--prompt", "Hi", "--max-new-tokens", "100"],
      "Error: A prompt of 3 and max_new_tokens 100",
    ),
    (["--model", "GPT", "--tokenizer", "bytes", "--prompt", "H" * 60], "Error: A prompt of 61 and max_new_tokens 1 "),
  ],
)
def test_mistakes_end_in_one_line(folders, capsys, flags, message):
  with pytest.raises(SystemExit) as error:
    main([str(folders["gpt"]) if flag == "GPT" else flag for flag in flags])
  said = capsys.readouterr().err
  assert error.value.code == 2 and said.startswith(message) and said.count("\n") == 1


def test_the_files_say_how_unless_a_flag_does(folders, tmp_path, capsys):
  params = zoo.load(folders["gpt"])[1]
  encoder = zoo.load_tokenizer("bytes")
  zoo.save_hf(tmp_path, MODEL, params)
  (tmp_path / "generation_config.json").write_text('{"eos_token_id": 258, "suppress_tokens": [101], "max_length": 30}')
  tokens = encoder(["Hi"])["tokens"][0]
  for flags, options in (
    ([], {"suppress": [101], "eos": 258}),
    (["--plain"], {"eos": encoder.eos}),
    (
      ["--suppress", "104", "105", "--force", "2=65", "last=66"],
      {"suppress": [104, 105], "forced": {2: 65, -1: 66}, "eos": 258},
    ),
  ):
    run(tmp_path, "--prompt", "Hi", *flags)
    out = zoo.generate(MODEL, params, tokens[None], max_new_tokens=17, **options)
    new = np.asarray(out)[0, len(tokens) :].tolist()
    wanted = encoder.decode(new[: new.index(options["eos"])] if options["eos"] in new else new)
    assert capsys.readouterr().out == f"Hi{wanted}\n"


def test_as_many_tokens_as_fit_or_as_the_file_allows(folders, tmp_path, monkeypatch):
  counts = []
  count = lambda *args, max_new_tokens, **_: counts.append(max_new_tokens)
  monkeypatch.setattr(sys.modules[main.__module__], "generate", count)
  zoo.save_hf(tmp_path, MODEL, zoo.load(folders["gpt"])[1])
  hi = ["--tokenizer", "bytes", "--prompt", "Hi", "--model"]
  main([*hi, str(folders["gpt"])])
  for length in ({}, {"max_length": 30}, {"max_length": 90}, {"max_new_tokens": 4}):
    (tmp_path / "generation_config.json").write_text(json.dumps(length))
    main([*hi, str(tmp_path)])
  (tmp_path / "generation_config.json").write_text('{"max_length": 1, "min_length": 1}')
  main([*hi, str(tmp_path), "--max-new-tokens", "5"])
  prompt = len(zoo.load_tokenizer("bytes")(["Hi"])["tokens"][0])
  assert counts == [57, 60 - prompt, 30 - prompt, 60 - prompt, 4, 5]


def test_a_model_of_sounds_takes_no_prompt(tmp_path, capsys):
  model = zoo.build("whisper", vocab_size=23, dim=8, depth=1, num_heads=2, mels=8, source_length=6, max_length=9)
  zoo.save(tmp_path, model, filled(model, *model.example(), seed=1))
  with pytest.raises(SystemExit):
    main(["--model", str(tmp_path), "--tokenizer", "bytes", "--prompt", "a.wav"])
  assert "takes sounds, but a prompt is text. Sounds: python -m zoo.transcribe" in capsys.readouterr().err


def test_writes_about_images(tmp_path, capsys):
  encoder = {"family": "vit", "image_size": 4, "patch_size": 2, "dim": 6, "depth": 1, "num_heads": 2}
  decoder = {"family": "gpt", "vocab_size": 260, "max_length": 30, "dim": 6, "depth": 1, "num_heads": 2}
  model = zoo.build("vision_encoder_decoder", encoder=encoder, decoder=decoder, start_token=3)
  params = filled(model, *model.example(), seed=1)
  zoo.save(tmp_path / "captioner", model, params)
  files = []
  for number, colour in enumerate(((250, 10, 10), (10, 240, 250))):
    files += ["--image", str(tmp_path / f"{number}.png")]
    Image.new("RGB", (9, 7), colour).save(files[-1])
  run(tmp_path / "captioner", *files)
  texts = zoo.load_tokenizer("bytes")
  images = zoo.load_processor(tmp_path / "captioner")(files[1::2])["image"]
  tokens = np.asarray(zoo.generate(model, params, images, max_new_tokens=17, eos=texts.eos))[:, 1:].tolist()
  written = [texts.decode(row[: row.index(texts.eos)] if texts.eos in row else row, special=False) for row in tokens]
  assert capsys.readouterr().out == "".join(f"{text}\n" for text in written)
  with pytest.raises(SystemExit):
    run(tmp_path / "captioner", "--prompt", "Hi")
  assert "takes images, but a prompt is text. Pass --image." in capsys.readouterr().err


def test_images_are_of_models_that_read_them(folders, capsys):
  with pytest.raises(SystemExit):
    run(folders["t5"], "--image", "photo.png")
  assert "does not read images. Leave it out." in capsys.readouterr().err
  with pytest.raises(SystemExit):
    run(folders["t5"], "--image", "photo.png", "--prompt", "Hi")
  assert "--prompt, --prompts and --image exclude each other" in capsys.readouterr().err
