#!/bin/sh
# rootfs.sh BUNDLE: makes BUNDLE/rootfs from the host's static busybox, once.
# rootfs.sh --check: is there a static busybox? Exits 1 and says what to install.
# BUSYBOX names another one than /bin/busybox. Needs no root.
set -eu
umask 022

busybox=${BUSYBOX:-/bin/busybox}

die() {
    echo "rootfs.sh: $*" >&2
    exit 1
}

check() {
    [ -x "$busybox" ] || die "$busybox: no such program: apt-get install busybox-static"
    # A dynamic busybox finds no libraries in an otherwise empty root.
    case $(ldd "$busybox" 2>&1) in
    *.so*) die "$busybox: needs shared libraries: apt-get install busybox-static" ;;
    esac
}

# The directories that a person expects of a small system, all owned by the
# caller: a runtime run as root then leaves no directory behind that only root
# could remove.
fill() {
    mkdir -p "$1/bin" "$1/dev" "$1/etc" "$1/home" "$1/proc" "$1/run" "$1/sys" "$1/usr/local/bin" "$1/var"
    mkdir -m 1777 "$1/tmp" "$1/var/tmp"
    mkdir -m 700 "$1/root"
    ln -s bin "$1/sbin"
    ln -s ../bin "$1/usr/bin"
    ln -s ../bin "$1/usr/sbin"
    cp "$busybox" "$1/bin/busybox"
    chmod 755 "$1/bin/busybox"
    "$busybox" --list | while read -r applet; do
        [ "$applet" = busybox ] || ln -s busybox "$1/bin/$applet"
    done
    printf '%s\n' root:x:0:0:root:/root:/bin/sh nobody:x:65534:65534:nobody:/:/bin/false >"$1/etc/passwd"
    printf '%s\n' root:x:0: tty:x:5: nogroup:x:65534: >"$1/etc/group"
    printf '%s\n' '127.0.0.1 localhost' '::1 localhost' >"$1/etc/hosts"
}

[ $# -eq 1 ] || die "usage: rootfs.sh BUNDLE | --check"
[ "$1" != --check ] || {
    check
    exit 0
}

bundle=$1
[ -f "$bundle/config.json" ] || die "$bundle: not a bundle: it has no config.json"
# The files that a network keeps up to date have to be there before the container is.
if grep -q '"etc/hosts"' "$bundle/config.json"; then
    mkdir -p "$bundle/etc"
    for file in hosts hostname resolv.conf; do
        [ -e "$bundle/etc/$file" ] || : >"$bundle/etc/$file"
    done
fi
[ ! -x "$bundle/rootfs/bin/busybox" ] || exit 0
check

# Filled aside and renamed: nobody ever sees half a root file system.
new=$(mktemp -d "$bundle/.rootfs.XXXXXX")
trap 'rm -rf "$new"' EXIT
trap 'exit 1' HUP INT TERM
chmod 755 "$new"
fill "$new"
if ! mv -T "$new" "$bundle/rootfs" 2>/dev/null; then
    # Somebody else may have been faster; anything else in the way is not ours to remove.
    [ -x "$bundle/rootfs/bin/busybox" ] || die "$bundle/rootfs: in the way and not made by this script: move it aside"
fi
