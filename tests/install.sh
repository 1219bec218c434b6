# What tests/run and the programs of tests/bench install alike: Debian packages and the test provider. To be sourced, in the
# checkout's root.

policy=/usr/sbin/policy-rc.d placed_policy=""

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
has() { command -v "$1" >/dev/null 2>&1; }

# To be called at the caller's end, however that comes.
remove_policy() {
    [ -z "$placed_policy" ] || as_root rm -f "$policy"
    placed_policy=""
}

# install_packages PACKAGE…: from Debian, without starting a service.
install_packages() {
    has apt-get || { echo "no apt-get here: install these by hand"; return 1; }
    # 101 is "forbidden" to invoke-rc.d: packages then do not start their services. The tests start what they need themselves.
    if [ ! -e "$policy" ]; then
        placed_policy=yes
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null && as_root chmod 755 "$policy" || return 1
    fi
    as_root apt-get update -q &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$@"
}

# install_npm_packages FOLDER: what its package-lock.json names.
install_npm_packages() {
    local lock=$1/package-lock.json installed=$1/node_modules/.installed-lock
    if cmp -s "$lock" "$installed"; then
        echo "npm packages are there"
    else
        npm ci --prefix "$1" --no-audit --no-fund && cp "$lock" "$installed"
    fi
}

# The npm packages of tests/provider, and a Node for them where Debian's is too old. Puts that on PATH.
install_test_provider() {
    install_npm_packages tests/provider || return 1
    if ! node -e 'process.exit(require("crypto").hash && URL.parse ? 0 : 1)'; then
        local newer="node-linux-$(node -p process.arch)"
        echo "Node $(node --version) is too old for the test provider: $newer goes to target/tools"
        [ -x "target/tools/node/node_modules/$newer/bin/node" ] ||
            npm install --no-save --no-package-lock --no-audit --no-fund --prefix target/tools/node "$newer@22.23.3" || return 1
        export PATH="$PWD/target/tools/node/node_modules/$newer/bin:$PATH"
    fi
}
