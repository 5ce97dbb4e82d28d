# One line per check; `.ci/run` runs all of them.

# List the commands.
default:
    @just --list

# Everything that CI checks.
ci:
    .ci/run

# All tests.
test *ARGS:
    cargo test {{ARGS}}

# Formatting, lints, documentation.
lint:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

# Licences, sources and duplicate versions of dependencies.
deny:
    .ci/deny.sh

# Run the complete chain on a generated checkpoint.
demo:
    cargo run --release -- demo

# Man pages, into target/man. Completions: `tandem manual --completions bash|zsh|fish|…`.
manual:
    cargo run --release -- manual --man target/man

# Damage input files, thousands of times by a seed.
fuzz CASES="2000":
    cargo build
    TANDEM=target/debug/tandem tests/fuzz/fuzz.py --cases {{CASES}}
