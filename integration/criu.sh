#!/bin/sh
# Prints a directory with a criu that works on this kernel: the machine's own, or else Debian
# sid's (4.x), which is unpacked into the user's cache with the libraries that it wants.
set -eu
export LC_ALL=C
if criu check >/dev/null 2>&1; then
    dirname "$(command -v criu)"
    exit
fi
place=${XDG_CACHE_HOME:-$HOME/.cache}/rt-criu
if ! "$place/criu" check >/dev/null 2>&1; then
    mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -m1 '/debian/*$')
    rm -rf "$place"
    mkdir -p "$place"
    # A mirror that is weeks behind will do.
    mmdebstrap --quiet --variant=extract --include=criu --aptopt='Acquire::Check-Valid-Until "false"' \
        sid "$place/root" "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" >&2
    libraries=$place/root/usr/lib/$(uname -m)-linux-gnu
    cat >"$place/criu" <<SCRIPT
#!/bin/sh
exec $libraries/ld-linux-x86-64.so.2 --library-path $libraries $place/root/usr/sbin/criu "\$@"
SCRIPT
    chmod 755 "$place/criu"
    "$place/criu" check >&2
fi
echo "$place"
