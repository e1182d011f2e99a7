import fcntl
import json
import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.generate import __main__ as command
from zoo.generate.__main__ import main

MODEL = zoo.build("gpt", vocab_size=260, max_length=60, dim=6, depth=1, num_heads=2)
ANSWERS = zoo.build("t5", vocab_size=260, dim=6, depth=1, num_heads=2, head_dim=3)
TEXTS = ["Hi", "What is a ring?", "", "Where do the swallows go in winter, and why?", "Ünï", "no", "one more", "end"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  lines = {}
  for name, model in (("gpt", MODEL), ("t5", ANSWERS)):
    lines[name] = tmp_path_factory.mktemp(name)
    zoo.save(lines[name], model, filled(model, *model.example(), seed=1))
  return lines


def write(path, rows):
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


def read(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def run(folder, prompts, out, *flags):
  fixed = ["--tokenizer", "bytes", "--max-new-tokens", "7", "--batch-size", "4"]
  return main(["--model", str(folder), "--prompts", str(prompts), "--out", str(out), *fixed, *flags])


def alone(model, folder, row, number, **options):
  """The new tokens of one prompt, by `generate`, from the same key as in a file."""
  encoder, prompt = zoo.load_tokenizer("bytes"), row["prompt"]
  if isinstance(prompt, list):
    tokens = prompt
  elif model is MODEL:
    tokens = [encoder.eos, *encoder.encode(prompt)]
  else:
    tokens = encoder([prompt])["tokens"][0].tolist() or [encoder.eos]
  if options.get("temperature"):
    options["rng"] = jax.random.fold_in(jax.random.key(5), number)
  most = row.get("max_new_tokens", 7)
  out = zoo.generate(
    model, zoo.load(folder)[1], np.array([tokens]), eos=encoder.eos, pad=-1, max_new_tokens=most, **options
  )
  return [token for token in np.asarray(out)[0, -most:].tolist() if token >= 0]


@pytest.mark.parametrize("family, flags, options", [
  ("gpt", [], {}),
  ("gpt", ["--temperature", "1.5", "--seed", "5"], {"temperature": 1.5}),
  ("t5", [], {}),
  ("t5", ["--num-beams", "2"], {"num_beams": 2}),
])  # fmt: skip
def test_each_line_is_answered_in_its_place(folders, tmp_path, capsys, family, flags, options):
  rows = [{"prompt": text, "id": f"p{i}", "more": {"a": [i]}} for i, text in enumerate(TEXTS)]
  rows[1] |= {"max_new_tokens": 3}
  rows[5] = {"prompt": [104, 105], "id": None}
  out, model = tmp_path / "out.jsonl", {"gpt": MODEL, "t5": ANSWERS}[family]
  assert run(folders[family], write(tmp_path / "in.jsonl", rows), out, *flags) == 0
  assert capsys.readouterr().out == f"{out} has the answers to 8 prompts.\n"
  encoder = zoo.load_tokenizer("bytes")
  for number, (row, answer) in enumerate(zip(rows, read(out), strict=True)):
    added = {name: answer.pop(name) for name in ("line", "generated", "tokens", "finish")}
    assert answer == row and added["line"] == number + 1
    assert added["tokens"] == alone(model, folders[family], row, number, **options)
    ended = added["tokens"][-1] == encoder.eos
    assert added["finish"] == ("end" if ended else "length")
    assert added["generated"] == encoder.decode(added["tokens"][: -1 if ended else None], special=False)


def test_what_is_there_is_kept_and_the_rest_is_written(folders, tmp_path):
  prompts, out = write(tmp_path / "in.jsonl", [{"prompt": text} for text in TEXTS]), tmp_path / "out.jsonl"
  run(folders["gpt"], prompts, out)
  whole = out.read_bytes()
  lines = whole.splitlines(keepends=True)
  for left in (lines[5] + lines[2], lines[6] + lines[0][:-9], b"", lines[3][:1], whole):
    out.write_bytes(left)
    assert run(folders["gpt"], prompts, out) == 0
    assert out.read_bytes() == whole
  marked = lines[2].replace(b'"prompt"', b'"kept": 1, "prompt"')
  out.write_bytes(marked + lines[7])
  run(folders["gpt"], prompts, out)
  assert out.read_bytes() == whole.replace(lines[2], marked)  # It was not generated again.


def test_a_killed_process_is_taken_up_where_it_was(folders, tmp_path):
  prompts, out = write(tmp_path / "in.jsonl", [{"prompt": f"{n} {n}"} for n in range(200)]), tmp_path / "out.jsonl"
  command = [sys.executable, "-m", "zoo.generate", "--model", str(folders["gpt"]), "--tokenizer", "bytes"]
  command += ["--prompts", str(prompts), "--out", str(out), "--max-new-tokens", "7", "--batch-size", "4"]
  process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
  while process.poll() is None and (not out.exists() or out.read_bytes().count(b"\n") < 20):
    pass
  process.send_signal(signal.SIGKILL)
  process.communicate()
  before = [line for line in out.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
  assert process.returncode == -signal.SIGKILL and 20 <= len(before) < 200
  run(folders["gpt"], prompts, out)
  lines = out.read_bytes().splitlines(keepends=True)
  assert set(before) <= set(lines)
  assert [json.loads(line)["line"] for line in lines] == list(range(1, 201))


@pytest.mark.parametrize(
  "flags, change, message",
  [
    (["--temperature", "1"], None, "was written with other settings: temperature is None there and 1.0 now"),
    ([], b'{"prompt": "another"}\n', "was written with other settings: prompts is"),
    ([], "settings", "exists without out.jsonl.settings.json"),
    ([], "line", "line 1 is not an answer of this program"),
    ([], "lock", "is being written by another process"),
  ],
)
def test_answers_to_something_else_stay_as_they_are(folders, tmp_path, capsys, flags, change, message):
  prompts, out = write(tmp_path / "in.jsonl", [{"prompt": "Hi"}]), tmp_path / "out.jsonl"
  run(folders["gpt"], prompts, out)
  if isinstance(change, bytes):
    prompts.write_bytes(change)
  elif change == "settings":
    os.remove(f"{out}.settings.json")
  elif change == "line":
    out.write_text("hello\n")
  before = out.read_bytes()
  with open(out) as holder:
    if change == "lock":
      fcntl.flock(holder, fcntl.LOCK_EX)
    with pytest.raises(SystemExit) as error:
      run(folders["gpt"], prompts, out, *flags)
  said = capsys.readouterr().err
  assert error.value.code == 2 and message in said and said.count("Error: ") == 1 and out.read_bytes() == before


@pytest.mark.parametrize(
  "content, message",
  [
    (b'{"prompt": "a"}\n{"text": "b"}\n', "in.jsonl line 2 has the fields text. Give every line a field prompt"),
    (b'{"prompt": "a"}\n\n{"prompt"', "in.jsonl line 3 is not JSON"),
    (b'{"prompt": []}\n', "line 1 has as prompt []"),
    (b'{"prompt": [260]}\n', "line 1: The prompt's tokens have the token 260, the model's tokens are 0 to 259"),
    (b'{"prompt": "a", "tokens": 3}\n', "line 1 has the field 'tokens', which its answer is written to"),
    (b'{"prompt": "a", "max_new_tokens": 0}\n', "line 1: max_new_tokens is 0. It must be an int, at least 1"),
    (b'{"prompt": "a"}\n{"prompt": "%s"}\n' % (b"b" * 70), "line 2: A prompt of 71 and max_new_tokens 7 exceed"),
    (b"", "in.jsonl is empty"),
  ],
)
def test_what_is_no_prompt_is_refused_before_anything_is_written(folders, tmp_path, capsys, content, message):
  (tmp_path / "in.jsonl").write_bytes(content)
  with pytest.raises(SystemExit) as error:
    run(folders["gpt"], tmp_path / "in.jsonl", tmp_path / "out.jsonl")
  said = capsys.readouterr().err
  assert error.value.code == 2 and message in said and said.count("\n") == 1
  assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
  "flags, message",
  [
    (["--batch-size", "0", "--num-beams", "2"], "batch_size is 0. It must be an int, at least 1"),
    (["--temperature", "-1"], "temperature is -1.0"),
    (["--top-k", "0"], "top_k is 0"),
    (["--suppress", "260"], "suppress has token 260"),
    (["--cache-dtype", "int3"], "cache_dtype is 'int3'"),
    (["--num-beams", "2", "--temperature", "1"], "beam search does not sample"),
    (["--mesh", "3"], "mesh is 3. It must be a mapping"),
    (["--out", "."], "--out is ., a folder or a device"),
    (["--prompts", "/", "--out", ""], "--prompts is '/', not a file"),
  ],
)
def test_flags_out_of_range_are_refused_before_anything_is_written(folders, tmp_path, capsys, flags, message):
  write(tmp_path / "in.jsonl", [{"prompt": "Hi"}])
  with pytest.raises(SystemExit) as error:
    run(folders["gpt"], tmp_path / "in.jsonl", tmp_path / "out.jsonl", *flags)
  said = capsys.readouterr().err
  assert error.value.code == 2 and message in said and said.count("\n") == 1
  assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_no_prompt_is_cut_to_the_length_of_a_tokenizer(folders, tmp_path, capsys, monkeypatch):
  zoo.save_hf(tmp_path / "hub", MODEL, zoo.load(folders["gpt"])[1])
  monkeypatch.setattr(command, "load_tokenizer", lambda _: zoo.load_tokenizer("bytes").changed(max_length=5))
  prompts = write(tmp_path / "in.jsonl", [{"prompt": "Hi"}, {"prompt": "b" * 70}])
  with pytest.raises(SystemExit):
    run(tmp_path / "hub", prompts, tmp_path / "out.jsonl")
  assert "line 2: A prompt of 7" in capsys.readouterr().err


def test_options_are_checked_before_the_prompt_is_shown(folders, capsys):
  with pytest.raises(SystemExit):
    main(["--model", str(folders["gpt"]), "--tokenizer", "bytes", "--prompt", "Hi", "--top-k", "0"])
  said = capsys.readouterr()
  assert said.out == "" and "top_k is 0" in said.err


def test_a_length_that_counts_the_prompt_is_asked_for(folders, tmp_path, capsys):
  zoo.save_hf(tmp_path / "hub", MODEL, zoo.load(folders["gpt"])[1])
  (tmp_path / "hub" / "generation_config.json").write_text('{"min_length": 20, "max_length": 30}')
  prompts = write(tmp_path / "in.jsonl", [{"prompt": "Hi"}, {"prompt": "Hello"}])
  flags = ["--model", str(tmp_path / "hub"), "--tokenizer", "bytes", "--prompts", str(prompts)]
  with pytest.raises(SystemExit):
    main(flags)
  assert "The model's min_length counts prompts" in capsys.readouterr().err
  main([*flags, "--min-new-tokens", "3"])
  counts = [len(answer["tokens"]) for answer in read(tmp_path / "in.answers.jsonl")]
  assert counts == [30 - len(zoo.load_tokenizer("bytes")([text])["tokens"][0]) for text in ("Hi", "Hello")]
