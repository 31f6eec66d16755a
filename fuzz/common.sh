# What the scripts beside this one share. To be sourced.
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ALL_TARGETS=(record_frame session_bytes pair_ops parameters messages resume)
TOOLCHAIN=${TOOLCHAIN:-nightly}
rustc "+$TOOLCHAIN" --version >/dev/null 2>&1 || rustup toolchain install "$TOOLCHAIN" --profile minimal >&2
HOST=$(rustc "+$TOOLCHAIN" -vV | sed -n 's/^host: //p')
# Nothing of ours is `unsafe`, and without a sanitizer there are several times as many runs; SANITIZER=address looks
# for mistakes in what we depend on.
SANITIZER=${SANITIZER:-none}
TARGET_DIR=${CARGO_TARGET_DIR:+$CARGO_TARGET_DIR/fuzz}
TARGET_DIR=${TARGET_DIR:-fuzz/target}
BINARIES=$TARGET_DIR/$HOST/release
# As `cargo fuzz run` has it: the standard library is not built with the sanitizer.
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_odr_violation=0}

die() { printf '%s\n' "$*" >&2; exit 2; }

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit "${1:-2}"; }

is_target() { [[ " ${ALL_TARGETS[*]} " == *" $1 "* ]]; }

need_cargo_fuzz() {
  cargo "+$TOOLCHAIN" fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --version ~0.13 --locked
}

build() {
  need_cargo_fuzz
  cargo "+$TOOLCHAIN" fuzz build --sanitizer "$SANITIZER" --target-dir "$TARGET_DIR" "$@"
}

# Inputs of a target that are in git, and those in MORE_SEEDS, which `cargo sim export-corpus` makes.
given() {
  local directory
  for directory in "fuzz/seeds/$1" "fuzz/regressions/$1" "${MORE_SEEDS:-/nowhere}/$1"; do
    if [[ -d $directory ]]; then echo "$directory"; fi
  done
}

# What no run may take more of.
limits() { echo -timeout=10 -rss_limit_mb=2048; }
