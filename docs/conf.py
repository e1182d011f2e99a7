"""Configuration of the site: MyST pages, executed notebooks, and API pages written by walking the package."""

import os
import re
import resource
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
PAGE = 45  # CPU-seconds of a page's cells, see CONTRIBUTING.md.
sys.path[:0] = [str(ROOT), str(HERE)]

import api_pages
import docstring_markup

project, author = "flax-zoo", "The flax-zoo authors"
project_copyright = author
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "sphinx_design"]
exclude_patterns = ["_build", "README.md"]

html_theme = "pydata_sphinx_theme"
html_title = project
html_static_path, templates_path = ["_static"], ["_templates"]
html_css_files, html_favicon = ["site.css"], "_static/favicon.svg"
html_context = {"default_mode": "auto"}  # Light or dark, as the reader's system is.
html_show_sourcelink = html_show_copyright = html_use_index = False
html_theme_options = {
  "navbar_center": [],
  "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
  "footer_start": ["copyright"],
  "footer_end": ["sphinx-version"],
}
html_sidebars = {"**": ["navigation.html"]}

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# ref.python: types in signatures are links where a name is unique.
suppress_warnings = ["mystnb.unknown_mime_type", "ref.python"]

# Notebooks run once: a page is executed again when one of its code cells changes (make clean forgets them), and an
# exception fails the build. tests/test_notebooks.py runs the tutorials each time, with fewer steps.
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / ".cache" / "docs")
nb_execution_raise_on_error = True
nb_execution_timeout = 900
nb_merge_streams = True
nb_output_stderr = "remove"

default_role, highlight_language = "code", "none"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
smartquotes_action = "D"  # Dashes only: "gpt" is a string.
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 90
add_module_names = False

for folder in ("tutorials", "api"):
  shutil.rmtree(HERE / folder, ignore_errors=True)
(HERE / "tutorials").mkdir()
for notebook in (ROOT / "notebooks").glob("*.ipynb"):
  shutil.copy(notebook, HERE / "tutorials")
api_pages.write(HERE / "api")

# What the notebooks train lands in a fresh folder; the sentence encoder's notebook needs the weights.
os.environ.setdefault("ZOO_RUN", str(Path(tempfile.mkdtemp(prefix="zoo-docs-")) / "quickstart"))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
# Pages are executed side by side, and their arrays are small: a program that is split over all cores costs more than it
# saves, in compilation too.
QUICK = "--xla_cpu_multi_thread_eigen=false --xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}".strip()
nb_execution_excludepatterns = []
if "ZOO_MINILM" not in os.environ and not (Path.home() / ".cache/zoo/all-MiniLM-L6-v2/model.safetensors").exists():
  print("The weights of MiniLM are not there (scripts/fetch.py --only=minilm): their page is built without outputs.")
  nb_execution_excludepatterns.append("tutorials/pretrained.ipynb")


def spread_executed_pages(app, env, docnames):
  """Puts pages of other kinds between the executed ones: Sphinx reads neighbours one after the other, in batches."""
  executed = [name for name in docnames if name.startswith(("textbook/", "tutorials/"))]
  rest = [name for name in docnames if name not in executed]
  count = -(-len(rest) // max(len(executed), 1))
  between = [rest[i * count : (i + 1) * count] for i in range(len(executed))]
  docnames[:] = [name for page, others in zip(executed, between, strict=True) for name in (page, *others)] or rest


def tutorials_of_the_site(app, docname, source):
  """Pages link to ../notebooks, which is there without a build too; on the site, to the executed copies."""
  if not docname.startswith("tutorials/"):
    source[0] = re.sub(r"\]\(((?:\.\./)*)\.\./notebooks/", r"](\1tutorials/", source[0])


def cost_of_kernels():
  """CPU-seconds of the processes that this one started and waited for: the kernels of the pages that it has read."""
  usage = resource.getrusage(resource.RUSAGE_CHILDREN)
  return usage.ru_utime + usage.ru_stime


def page_begins(app, docname, source):
  """Called by Sphinx before a page is executed; each of its processes reads one page at a time."""
  app.env.zoo_cost_before = cost_of_kernels()


def page_ends(app, doctree):
  """Called by Sphinx after a page was executed. It only reports: the cost depends on the machine, and on the caches."""
  cost = cost_of_kernels() - app.env.zoo_cost_before
  if cost > PAGE:
    print(f"{app.env.docname} took {cost:.0f} CPU-seconds, more than the {PAGE} of a page.")


def setup(app):
  """Called by Sphinx."""
  app.connect("env-before-read-docs", spread_executed_pages)
  app.connect("source-read", tutorials_of_the_site)
  app.connect("source-read", page_begins)
  app.connect("doctree-read", page_ends)
  app.connect("autodoc-process-docstring", docstring_markup.process, priority=400)  # Before napoleon.
  app.connect("autodoc-skip-member", docstring_markup.skip)
  app.connect("autodoc-process-signature", docstring_markup.signature)
