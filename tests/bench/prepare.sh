# What the programs of tests/bench do first. To be sourced, in the checkout's root.

export PATH="$PATH:/usr/sbin:/sbin"
. tests/install.sh
trap remove_policy EXIT

# prepare COMMAND=PACKAGE…: installs each package whose command is missing, and what all of them need.
prepare() {
    local one wanted=()
    has cargo || { echo "cargo is missing: install Rust with rustup"; return 1; }
    for one in cc=build-essential git=git python3=python3 node=nodejs npm=npm "$@"; do
        has "${one%%=*}" || [ -e "${one%%=*}" ] || wanted+=("${one#*=}")
    done
    [ ${#wanted[@]} = 0 ] || install_packages "${wanted[@]}" || return 1
    remove_policy # now: exec runs no trap
    install_test_provider
}

# The load generators and one upstream. Not together with cloakroom, which would get the features that only the tests use; and
# only if they have changed: for cargo they depend on all of cloakroom, which takes minutes.
build_generators() {
    local stamp=target/release/examples/bench.built
    if ! [ -e "$stamp" ] || [ -n "$(find tests/bench/*.rs Cargo.toml Cargo.lock -newer "$stamp")" ]; then
        cargo build --locked --release --example fixed_rate --example closed_loop --example receiver && touch "$stamp"
    fi
}

# build_as_the_image RUSTFLAGS: cloakroom, as deploy/Dockerfile has it built for this machine.
build_as_the_image() {
    CARGO_PROFILE_RELEASE_STRIP=symbols RUSTFLAGS=$1 cargo build --release --locked --bin cloakroom --target "$(image_target)" \
        --target-dir target/bench/image
}

# Where that lies.
built_as_the_image() { echo "target/bench/image/$(image_target)/release/cloakroom"; }

image_target() { echo "$(uname -m)-unknown-linux-gnu"; }
