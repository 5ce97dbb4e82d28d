#!/usr/bin/env bash
# Packs and unpacks small files; fails if they are changed, or if damage is not detected.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
fail() { echo "test_pack.sh: $*" >&2; exit 1; }

mkdir -p from/bin from/lib
head -c 300000 /dev/urandom >from/lib/library.so.1
echo '#!/bin/sh' >'from/bin/a program'
chmod +x 'from/bin/a program'
"$here/pack.sh" parts --from from --part-bytes 50000
[ "$(ls parts/part-* | wc -l)" -gt 4 ] || fail "too few parts"
[ -z "$(find parts -size +50000c)" ] || fail "a part is too large"

parts/unpack.sh parts back
rm back/CONTENTS.sha256
diff -r from back || fail "files were changed"
[ -x 'back/bin/a program' ] || fail "a program lost its executable bit"

rejected() { # reason
  if parts/unpack.sh parts again 2>message; then fail "$1 was not detected"; fi
  grep -q "part-003" message || fail "the message for $1 does not name the part"
  [ ! -e again ] || fail "$1 left a folder"
}
printf x | dd of=parts/part-003 bs=1 seek=100 conv=notrunc status=none
rejected "a damaged part"
rm parts/part-003
rejected "a missing part"
if parts/unpack.sh parts back 2>/dev/null; then fail "a folder was overwritten"; fi
echo "packing and unpacking: passed"
