#!/usr/bin/env bash
# Does an image do what it is for: start as it would in production, transcribe, and stop by itself?
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: deploy/scripts/try_image.sh IMAGE    (BUILDER: docker or podman)" >&2
    exit 2
fi
image="$1"
engine="${BUILDER:-docker}"
name="whisper-serve-try-$$"

# Whatever came of it, nothing stays.
trap '"$engine" rm --force --volumes "$name" >/dev/null' EXIT

"$engine" run --detach --name "$name" --read-only --tmpfs /tmp:mode=1777 --shm-size 768m \
    --cap-drop ALL --security-opt no-new-privileges --volume /var/lib/whisper_serve \
    --env WHISPER_SERVE__AUTH__OPEN=true --env WHISPER_SERVE__AUTH__KEYS_FILE=null \
    "$image" >/dev/null

for _ in $(seq 90); do
    state="$("$engine" inspect --format '{{.State.Status}} {{.State.Health.Status}}' "$name")"
    [ "$state" = "running healthy" ] && break
    [ "${state%% *}" = running ] || break
    sleep 2
done
if [ "$state" != "running healthy" ]; then
    "$engine" logs "$name" >&2
    echo "try_image.sh: error: it is $state" >&2
    exit 1
fi

"$engine" exec "$name" whisper-serve sample /tmp/sample.wav >/dev/null
text="$("$engine" exec "$name" whisper-serve transcribe /tmp/sample.wav)"
echo "heard: $text"
grep -qi "try again" <<<"$text"

"$engine" stop -t 75 "$name" >/dev/null
code="$("$engine" inspect --format '{{.State.ExitCode}}' "$name")"
echo "exit code: $code"
[ "$code" = 0 ]
