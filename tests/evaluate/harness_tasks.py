"""Tasks of lm-evaluation-harness for tests: its own YAML, on a few JSON lines of random words."""

import numpy as np

from tests.data.toys import write_jsonl

WORDS = "the quick fox is in Rome Paris and a river not far from here , where . who ? we live".split()
CHOICES = """
task: choices
dataset_path: json
dataset_kwargs: {data_files: FILE, cache_dir: CACHE}
output_type: multiple_choice
test_split: train
doc_to_text: "{{question}}"
doc_to_target: "{{label}}"
doc_to_choice: "{{choices}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
PERPLEXITY = """
task: texts
dataset_path: json
dataset_kwargs: {data_files: FILE, cache_dir: CACHE}
output_type: loglikelihood_rolling
test_split: train
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
"""
ANSWERS = """
task: answers
dataset_path: json
dataset_kwargs: {data_files: FILE, cache_dir: CACHE}
output_type: generate_until
test_split: train
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["no", " ?"], max_gen_toks: 11, do_sample: false}
metric_list: [{metric: exact_match}]
"""
TASKS = {"choices": CHOICES, "texts": PERPLEXITY, "answers": ANSWERS}


def sentence(rng, most=13):
  return " ".join(rng.choice(WORDS, rng.integers(1, most)))


def tasks_in(folder):
  """YAML tasks on local files, of texts shorter and longer than the models' 24 tokens."""
  rng = np.random.default_rng(0)
  rows = {
    "choices": [
      {"question": f"{sentence(rng)} ", "choices": ["A", "B", f"the {sentence(rng, 5)}", "quick"], "label": 2}
      for _ in range(7)
    ],
    "texts": [{"text": sentence(rng, 41)} for _ in range(5)],
    "answers": [{"question": sentence(rng, 29), "answer": " fox"} for _ in range(7)],
  }
  rows["choices"] += [{"question": "", "choices": ["the fox", "a river", "Rome", "Paris"], "label": 0}]
  folder.mkdir()
  for name, text in TASKS.items():
    write_jsonl(folder / f"{name}.jsonl", rows[name])
    text = text.replace("FILE", str(folder / f"{name}.jsonl")).replace("CACHE", str(folder.parent / "cache"))
    (folder / f"{name}.yaml").write_text(text)
  return folder
