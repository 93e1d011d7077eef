#!/usr/bin/env bash
# Writes every schedule that torch's files can express into a folder, for torch_schedules.py.
#
#   tests/interop/torch_schedules.sh FOLDER        STAGECRAFT: the program (default build/dev/cli/stagecraft)
set -euo pipefail

folder=$1
stagecraft=${STAGECRAFT:-build/dev/cli/stagecraft}
mkdir -p "$folder"

# name, ranks, stages a rank, micro-batches
while read -r name p v m; do
  file=$folder/$name-p$p-v$v-m$m
  "$stagecraft" show schedule "$name" -p "$p" -v "$v" -m "$m" --format torch-csv >"$file.csv"
  "$stagecraft" show schedule "$name" -p "$p" -v "$v" -m "$m" --format torch-csv --communication >"$file.comms.csv"
done <<'SHAPES'
gpipe 2 1 4
gpipe 4 1 8
1f1b 2 1 4
1f1b 4 1 8
eager-1f1b 4 1 8
interleaved-1f1b 2 2 4
interleaved-1f1b 4 2 8
interleaved-1f1b-torch 4 2 10
looped-bfs 2 2 4
looped-bfs 4 2 8
zb-h1 4 1 8
zb-h2 4 1 8
zb-1p 4 1 8
zb-2p 4 1 8
interleaved-zero-bubble 4 2 8
zb-v 2 2 4
zb-v 4 2 8
zb-v-auto 4 2 8
v-half 4 2 8
v-min 4 2 8
dualpipe-v 2 2 4
dualpipe-v 4 2 8
hanayo 2 2 4
hanayo 4 4 8
searched 4 1 8
SHAPES
ls "$folder" | wc -l
