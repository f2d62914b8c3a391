# What quickstart.sh and tests/run.sh share: the tools that the build needs, and where things are. To be sourced.
# The one who runs it is root on a system with apt-get: what is missing is installed. Otherwise one line says what to
# install, and the script ends.

say() { printf '\n== %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$1" >&2
    [ $# -lt 2 ] || printf 'hint: %s\n' "$2" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# bindgen reads C headers through libclang, which must have its own headers (stddef.h) with it.
have_libclang() {
    if [ "$(uname -s)" = Darwin ]; then
        xcode-select -p >/dev/null 2>&1
        return
    fi
    local library header
    library=$(find ${LIBCLANG_PATH:+"$LIBCLANG_PATH"} /usr/lib /usr/lib64 /usr/local/lib -maxdepth 4 \
        \( -name 'libclang.so*' -o -name 'libclang-[0-9]*.so*' \) -print -quit 2>/dev/null)
    header=$(find ${LIBCLANG_PATH:+"$LIBCLANG_PATH"} /usr/lib /usr/lib64 /usr/local/lib -maxdepth 6 \
        -path '*clang*/include/stddef.h' -print -quit 2>/dev/null)
    [ -n "$library" ] && [ -n "$header" ]
}
have_pip() { python3 -m pip --version >/dev/null 2>&1; }
# cargo fetches crates over TLS and needs to know whom to trust.
have_certificates() {
    [ "$(uname -s)" = Darwin ] || [ -n "${SSL_CERT_FILE:-}" ] || [ -s /etc/ssl/certs/ca-certificates.crt ] ||
        [ -s /etc/pki/tls/certs/ca-bundle.crt ] || [ -s /etc/ssl/cert.pem ]
}

# ensure TOOL...: each of certificates, c++, make, cmake, libclang, pip, valgrind, go.
ensure() {
    local tool missing=() debian=() fedora=() macos=()
    for tool in "$@"; do
        case $tool in
        certificates) have_certificates || { missing+=("certificates"); debian+=(ca-certificates); fedora+=(ca-certificates); } ;;
        c++) have c++ || have g++ || have clang++ || { missing+=("a C++ compiler"); debian+=(g++); fedora+=(gcc-c++); macos+=(llvm); } ;;
        make) have make || have ninja || { missing+=("make"); debian+=(make); fedora+=(make); macos+=(make); } ;;
        cmake) have cmake || { missing+=("cmake"); debian+=(cmake); fedora+=(cmake); macos+=(cmake); } ;;
        libclang) have_libclang || { missing+=("libclang"); debian+=(libclang-dev); fedora+=(clang-devel); macos+=(llvm); } ;;
        pip) have_pip || { missing+=("python3 with pip"); debian+=(python3-pip); fedora+=(python3-pip); macos+=(python); } ;;
        valgrind) have valgrind || { missing+=("valgrind"); debian+=(valgrind libc6-dbg); fedora+=(valgrind); } ;;
        go) have go || { missing+=("go"); debian+=(golang-go); fedora+=(golang); macos+=(go); } ;;
        esac
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    local list
    list=$(printf ', %s' "${missing[@]}")
    list=${list:2}
    if have apt-get && [ "$(id -u)" = 0 ]; then
        say "installing ${debian[*]-}"
        export DEBIAN_FRONTEND=noninteractive
        { apt-get -q update && apt-get -q install -y --no-install-recommends "${debian[@]}"; } >&2 </dev/null ||
            die "apt-get could not install ${debian[*]-}" "check the network and the sources of apt"
    elif have apt-get; then
        die "missing: $list" "sudo apt-get install --no-install-recommends ${debian[*]-}"
    elif have dnf; then
        die "missing: $list" "sudo dnf install ${fedora[*]-}"
    elif have brew; then
        die "missing: $list" "brew install ${macos[*]-}"
    else
        die "missing: $list" "install it with your system's package manager (Debian calls it: ${debian[*]-})"
    fi
}

# Rust comes from rustup or a distribution that is new enough; Cargo.toml says how new.
ensure_rust() {
    [ ! -d "${CARGO_HOME:-${HOME:-}/.cargo}/bin" ] || PATH="$PATH:${CARGO_HOME:-${HOME:-}/.cargo}/bin"
    local want found
    want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
    have cargo && have rustc || die "no Rust found (cargo, rustc)" "install Rust $want or newer with rustup, or from your distribution"
    found=$(rustc --version | sed -n 's/^rustc \([0-9]*\.[0-9]*\).*/\1/p')
    [ "$(printf '%s\n%s\n' "$want" "$found" | sort -V | head -n 1)" = "$want" ] ||
        die "Rust $found is too old: $want or newer is needed" "rustup update stable"
}

# Where cargo puts what it builds.
target_dir() {
    cargo metadata --manifest-path "$root/Cargo.toml" --no-deps --format-version 1 |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}
