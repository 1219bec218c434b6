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
