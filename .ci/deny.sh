#!/usr/bin/env bash
# Checks licences, sources and duplicate versions of dependencies with cargo-deny (deny.toml).
#
# Advisories are not checked: their database is a git repository, which the ordinary package clients
# do not serve. Run `cargo deny check advisories` by hand where it can be cloned.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.20.2
cache="${TANDEM_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/tandem}"
root="$cache/cargo-deny-$version"
if [ ! -x "$root/bin/cargo-deny" ]; then
  # Built without optimization: building takes longer than checking.
  cargo install cargo-deny --version "$version" --locked --debug --root "$root"
fi
PATH="$root/bin:$PATH" cargo deny --all-features --locked check licenses bans sources
