"""What launch/ says to GKE, Slurm, SkyPilot, Docker and gcloud; the last two programs are played by scripts."""

import copy
import functools
import math
import operator
import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from kubeflow_trainer_api.models import JobsetV1alpha2JobSet

from zoo.config.loading import load

ROOT = Path(__file__).parent.parent
LAUNCH = ROOT / "launch"


@pytest.fixture
def play(tmp_path, monkeypatch):
  """play(name, script): a program of this name that does so, and notes how it was called."""
  monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
  monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
  (tmp_path / "bin").mkdir()

  def write(name, script="", folder="bin"):
    path = tmp_path / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/bash\necho "{name} $*" >> "$CALLS"\n{script}\n')
    path.chmod(0o755)

  write.calls = lambda: (tmp_path / "calls").read_text().splitlines()
  return write


def run(*command, **environment):
  return subprocess.run(
    [str(word) for word in command], capture_output=True, text=True, env={**os.environ, **environment}
  )


def holds(read, written):
  """Whether all that is written was read; besides it there may be defaults."""
  if isinstance(written, dict):
    return isinstance(read, dict) and all(name in read and holds(read[name], one) for name, one in written.items())
  if isinstance(written, list):
    return isinstance(read, list) and len(read) == len(written) and all(map(holds, read, written))
  return read == written


def accepted(jobset):
  """Whether the published schema knows every field, and has it of that type; what it does not know it leaves out."""
  try:
    return holds(JobsetV1alpha2JobSet.from_dict(jobset).to_dict(), jobset)
  except ValueError:
    return False


def test_the_jobset_says_nothing_that_its_schema_does_not_know():
  jobset = yaml.safe_load((LAUNCH / "jobset-tpu.yaml").read_text())
  assert accepted(jobset)
  job = ["spec", "replicatedJobs", 0, "template", "spec"]
  pod = [*job, "template", "spec"]
  for *path, name in [
    ["spec", "failurePolicy", "maxRestarts"],
    ["spec", "failurePolicy", "rules", 0, "onJobFailureReasons"],
    ["spec", "replicatedJobs", 0, "replicas"],
    [*job, "backoffLimit"],
    [*job, "podFailurePolicy", "rules", 0, "onExitCodes", "containerName"],
    [*pod, "terminationGracePeriodSeconds"],
    [*pod, "containers", 0, "volumeMounts", 0, "mountPath"],
    [*pod, "volumes", 0, "persistentVolumeClaim", "claimName"],
  ]:
    mistaken = copy.deepcopy(jobset)
    at = functools.reduce(operator.getitem, path, mistaken)
    at[f"{name}s"] = at[name]
    assert not accepted(mistaken), name
    del at[f"{name}s"]
    at[name] = {"of": "another type"}
    assert not accepted(mistaken), name


def test_the_jobset_has_a_pod_for_every_host_and_gives_train_what_it_takes(monkeypatch):
  monkeypatch.chdir(ROOT)
  jobset = yaml.safe_load((LAUNCH / "jobset-tpu.yaml").read_text())
  assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
  (job,) = jobset["spec"]["replicatedJobs"]
  spec = job["template"]["spec"]
  pod = spec["template"]["spec"]
  (container,) = pod["containers"]
  chips = math.prod(map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")))
  assert spec["completions"] == spec["parallelism"] == chips // container["resources"]["limits"]["google.com/tpu"]
  assert spec["backoffLimit"] == 0 and pod["restartPolicy"] == "Never"
  # Status 2 is a mistake of the user's: the rule of the job is what that of the set waits for.
  assert spec["podFailurePolicy"]["rules"] == [
    {"action": "FailJob", "onExitCodes": {"containerName": container["name"], "operator": "In", "values": [2]}}
  ]
  assert jobset["spec"]["failurePolicy"]["rules"][0]["onJobFailureReasons"] == ["PodFailurePolicy"]
  config, _ = load(container["args"])
  assert config.workdir.startswith(container["volumeMounts"][0]["mountPath"])
  assert pod["volumes"][0]["name"] == container["volumeMounts"][0]["name"]


def test_skypilot_trains_a_config_that_is_there(monkeypatch):
  monkeypatch.chdir(ROOT)
  task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
  line = task["run"].replace("$CONFIG", task["envs"]["CONFIG"])
  python, program, *arguments = shlex.split(line)
  assert python == ".venv/bin/python" and (ROOT / program).exists()
  config, _ = load(arguments)
  assert config.workdir.startswith(*task["file_mounts"])


def test_the_image_copies_what_is_there_and_starts_train():
  lines = (LAUNCH / "Dockerfile").read_text().splitlines()
  copied = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
  assert {"train.py", "zoo", "configs", "requirements.lock"} <= set(copied)
  assert all((ROOT / name).exists() for name in copied)
  assert 'ENTRYPOINT ["python", "train.py"]' in lines


@pytest.mark.parametrize("status", [0, 2, 143])
def test_slurm_starts_a_process_a_machine_and_asks_to_go_on_after_a_warning(tmp_path, play, status):
  play("scontrol", 'if [ "$1" = show ]; then echo node7; echo node8; fi')
  play("srun", 'shift; SLURM_PROCID=1 "$@"')
  play("python", f'env | grep ^JAX_ | sort >> "$CALLS"; exit {status}', folder=".venv/bin")
  slurm = dict(SLURM_SUBMIT_DIR=str(tmp_path), SLURM_JOB_NODELIST="node[7-8]", SLURM_JOB_ID="41234", SLURM_NTASKS="2")
  done = run("bash", LAUNCH / "slurm.sbatch", "--config=a b.py", "--config.steps=5", **slurm)
  assert done.returncode == status, done.stderr
  calls = play.calls()
  # Left to itself a site may have Slurm end the other tasks, by SIGTERM: 143 would hide the status of a mistake.
  assert any(call.startswith("srun --kill-on-bad-exit=0 ") for call in calls)
  assert "python train.py --config=a b.py --config.steps=5" in calls
  assert {"JAX_COORDINATOR_ADDRESS=node7:21234", "JAX_NUM_PROCESSES=2", "JAX_PROCESS_ID=1"} <= set(calls)
  assert ("scontrol requeue 41234" in calls) == (status == 143)


GCLOUD = """
last=${@: -3:1}
case "$4 $*" in
  describe*) cat state 2> /dev/null ;;
  create*) echo READY > state ;;
  delete*) rm -f state ;;
  ssh*train.py*)
    echo round >> rounds
    case $(wc -l < rounds) in
      1) rm state; echo zoo-status=0; echo zoo-status=143 ;;
      *) for host in 1 2; do echo "zoo-status=$LAST"; done ;;
    esac ;;
esac
"""


@pytest.mark.parametrize("last, status", [(0, 0), (2, 2)])
def test_a_slice_that_was_taken_away_is_made_again(tmp_path, play, last, status):
  play("gcloud", f'cd "{tmp_path}"\n' + GCLOUD)
  play("git")
  place = dict(PROJECT="p", ZONE="z", RUNS="gs://bucket/runs/mine", LAST=str(last))
  done = run(LAUNCH / "tpu_vm.sh", "--config=configs/clip_emoji.py", "--config.mesh={'data': 8}", **place)
  assert done.returncode == status, done.stdout + done.stderr
  calls = "\n".join(play.calls())
  assert calls.count("tpu-vm create zoo --accelerator-type=v5litepod-16") == 2
  assert "gcsfuse" in calls and "--only-dir=runs/mine bucket" in calls
  assert r"train.py --config=configs/clip_emoji.py --config.mesh=\{\'data\':\ 8\}" in calls
  assert "--project=p --zone=z" in calls


def test_a_slice_is_not_made_for_nothing(play):
  play("gcloud")
  done = run(LAUNCH / "tpu_vm.sh", PROJECT="p", ZONE="z", RUNS="gs://bucket")
  assert done.returncode == 2 and done.stderr.count("\n") == 1
  assert "RUNS=gs://BUCKET" in run(LAUNCH / "tpu_vm.sh", "--config=x", PROJECT="p", ZONE="z").stderr
