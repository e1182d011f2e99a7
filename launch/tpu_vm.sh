#!/usr/bin/env bash
# A TPU slice through the Cloud TPU API: makes it, copies the repository to every host, trains, and after a preemption
# does so again, until train.py has ended well or a mistake (status 2) has to be corrected.
#
#   PROJECT=my-project ZONE=us-west4-a RUNS=gs://my-bucket/runs launch/tpu_vm.sh --config=configs/clip_emoji.py --config.steps=500
#
# Runs live in the bucket, mounted on every host by gcsfuse, so leave --config.workdir as it is: runs/NAME.
# Google develops this API no further; GKE is the other way.
set -uo pipefail
: "${PROJECT:?Which project? PROJECT=...}" "${ZONE:?Which zone? ZONE=...}" "${RUNS:?Which bucket for runs? RUNS=gs://BUCKET}"
NAME=${NAME:-zoo} TYPE=${TYPE:-v5litepod-16} VERSION=${VERSION:-v2-alpha-tpuv5-lite} SPOT=${SPOT---spot}
[ $# -gt 0 ] || { echo "What to train? Arguments are those of train.py: --config=configs/clip_emoji.py" >&2; exit 2; }
cd "$(dirname "$0")/.." || exit

tpu() { gcloud compute tpus tpu-vm "$@" --project="$PROJECT" --zone="$ZONE"; }
everywhere() { tpu ssh "$NAME" --worker=all --command="$1"; }

bucket=${RUNS#gs://} folder=
case $bucket in */*) folder=${bucket#*/} bucket=${bucket%%/*} ;; esac
quoted=$(printf '%q ' "$@")
archive=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$archive"' EXIT
git archive --format=tar.gz --output="$archive" HEAD || exit 1
for attempt in $(seq "${ATTEMPTS:-50}"); do
  echo "=== attempt $attempt"
  state=$(tpu describe "$NAME" --format='value(state)' 2> /dev/null)
  if [ "$state" != READY ]; then
    [ -z "$state" ] || tpu delete "$NAME" --quiet
    # No capacity now: ask again in a minute.
    # shellcheck disable=SC2086 # SPOT= asks for none.
    tpu create "$NAME" --accelerator-type="$TYPE" --version="$VERSION" $SPOT || { sleep 60; continue; }
  fi
  tpu scp "$archive" "$NAME":zoo.tar.gz --worker=all \
    && everywhere "
      mkdir -p ~/zoo ~/runs && tar xzf ~/zoo.tar.gz -C ~/zoo && cd ~/zoo \
        && { mountpoint -q ~/runs || gcsfuse --implicit-dirs --rename-dir-limit=100000 ${folder:+--only-dir=$folder} $bucket ~/runs; } \
        && ln -sfn ~/runs runs \
        && { [ -e .venv/made ] || scripts/environment.sh python3 .venv; } \
        && .venv/bin/python -m pip install --quiet --no-build-isolation --editable '.[tpu]'" \
    || { sleep 60; continue; }
  # What gcloud itself returns says little of several hosts: each tells its own status.
  said=$(everywhere "cd ~/zoo && .venv/bin/python train.py $quoted; echo zoo-status=\$?" | tee /dev/stderr | grep -o 'zoo-status=[0-9]*')
  if grep -qx zoo-status=2 <<< "$said"; then
    echo "A mistake; see above." >&2
    exit 2
  elif [ -n "$said" ] && ! grep -qvx zoo-status=0 <<< "$said"; then
    echo "Done. The slice still costs: gcloud compute tpus tpu-vm delete $NAME --project=$PROJECT --zone=$ZONE"
    exit 0
  fi
  echo "Ended early; resumes from the newest checkpoint."
done
echo "Gave up after ${ATTEMPTS:-50} attempts." >&2
exit 1
