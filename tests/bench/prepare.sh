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
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) found=$(rustc --version)
    case $found in
        "rustc $wanted".*) ;;
        *) echo "The image is built with Rust $wanted, and this is $found: set RUSTUP_TOOLCHAIN=$wanted."; return 1 ;;
    esac
    CARGO_PROFILE_RELEASE_STRIP=symbols RUSTFLAGS=$1 cargo build --release --locked --bin cloakroom --target "$(image_target)" \
        --target-dir target/bench/image
}

# The same with the counts of deploy/cloakroom.profdata, which must fit.
build_with_counts() {
    local counts unit
    counts=$PWD/target/bench/$(sha256sum deploy/cloakroom.profdata | cut -c 1-16).profdata
    # Once: cargo builds all anew where the file is newer than what was built by it.
    mkdir -p target/bench && { [ -e "$counts" ] || cp deploy/cloakroom.profdata "$counts"; } || return 1
    build_as_the_image "-Cprofile-use=$counts -Cllvm-args=-no-pgo-warn-mismatch" || return 1
    # The names of what is counted have the hash of all that the compiler was told, down to each dependency's version.
    unit=$(grep -aom1 'cloakroom\.[0-9a-f]\{16\}-cgu' deploy/cloakroom.profdata | head -1)
    if ! grep -qaF "$unit" "$(ls -t "target/bench/image/$(image_target)"/release/deps/libcloakroom-*.rlib | head -1)"; then
        echo "deploy/cloakroom.profdata fits nothing any more (another version, dependency or compiler): run tests/bench/train, and commit it."
        return 1
    fi
}

# Where that lies.
built_as_the_image() { echo "target/bench/image/$(image_target)/release/cloakroom"; }

image_target() { echo "$(uname -m)-unknown-linux-gnu"; }
