#!/usr/bin/env bash
# Joins and extracts the parts that pack.sh wrote:
#
#   unpack.sh PARTS DIR
#
# PARTS is the folder with part-000 and so on and SHA256SUMS; DIR must not exist. Checksums are
# verified before and after; DIR is created atomically.
set -euo pipefail
[ $# -eq 2 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
parts="$(cd "$1" && pwd)" dir="$2"
[ ! -e "$dir" ] || { echo "unpack.sh: $dir exists; give a new folder" >&2; exit 2; }
[ -f "$parts/SHA256SUMS" ] || { echo "unpack.sh: $parts/SHA256SUMS is missing; pack.sh writes it" >&2; exit 1; }
(cd "$parts" && sha256sum --check --quiet SHA256SUMS >&2) || {
  echo "unpack.sh: parts of $parts are missing or damaged (listed above); copy them again" >&2
  exit 1
}
listed="$(sed -n 's/^[0-9a-f]*  \(part-[0-9]*\)$/\1/p' "$parts/SHA256SUMS")"
rm -rf "$dir.partial"
mkdir -p "$dir.partial"
# Python's reader, because xz may not be installed.
(cd "$parts" && cat $listed) | python3 -c '
import sys, tarfile
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|xz") as packed:
    packed.extractall(sys.argv[1])' "$dir.partial"
(cd "$dir.partial" && sha256sum --check --quiet CONTENTS.sha256 >&2) || {
  echo "unpack.sh: files in $dir.partial differ from those that were packed (listed above)" >&2
  exit 1
}
mv "$dir.partial" "$dir"
echo "unpacked $(wc -l <"$dir/CONTENTS.sha256") files to $dir" >&2
