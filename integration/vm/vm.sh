#!/bin/bash
# vm.sh - run one command as root in a throw-away Linux guest (cgroup v2, all controllers).
#
#   vm.sh build [--suite bookworm|trixie] [--no-uml]     build the cached image (root, network: apt only)
#   vm.sh built                                          is there an image?
#   vm.sh engine                                         which one runs it, if none is named
#   vm.sh [OPTIONS] COMMAND [ARG...]                     boot, run COMMAND, stream output, return its status
#
#   --fast          no systemd: a small init mounts cgroup2 with all controllers and runs COMMAND
#   --engine E      uml (user-mode-linux, default where it works) | qemu (TCG, 2 vCPUs)
#   --share D[:ro]  host folder seen at the same path in the guest, read-write (repeatable;
#                   default: the current folder)
#   --env N=V       environment variable for COMMAND (repeatable; nothing else is inherited)
#   --stdin         hand this script's stdin to COMMAND (read to its end first; else /dev/null)
#   --timeout S     whole run, boot included (default 300; then exit 124)
#   --mem M         guest memory in MiB (default 1024)
#   --cpus N        vCPUs (qemu only, default 2)
#   --append STR    more kernel command line
#   -v              guest console on stderr, timings
# Exit: COMMAND's; 124 timed out; 125 the guest died before COMMAND ended; 126 bad usage / no image.
# The guest has no network card. Its root disk is thrown away; only --share folders persist.
set -u -o pipefail
export LC_ALL=C
CACHE=${VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/rt-vm}
PKGS=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,iproute2,nftables,iptables,busybox-static,jq,apparmor,uidmap,kmod,procps,strace,linux-image-cloud-amd64${VM_PACKAGES:+,$VM_PACKAGES}
# the Debian mirror that this machine's own apt uses
MIRROR=${VM_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep -m1 '/debian/*$')}
die() { echo "vm.sh: $*" >&2; exit 126; }

# ---------------------------------------------------------------- build
extract_vmlinux() { # bzImage -> ELF (booted through PVH: no decompressor run under TCG)
  local z=$1 out=$2 m tool off
  while read -r m tool; do
    for off in $(grep -aboP "$m" "$z" | cut -d: -f1); do
      tail -c+$((off+1)) "$z" | $tool -dc >"$out" 2>/dev/null
      if [ "$(head -c4 "$out" | tr -d '\0')" = $'\x7fELF' ]; then return 0; fi
    done
  done <<'T'
\x02\x21\x4c\x18 lz4
\xfd7zXZ\x00 xz
\x28\xb5\x2f\xfd zstd
\x1f\x8b\x08 gzip
T
  return 1
}

write_guest_files() { # $1 = rootfs
  local r=$1
  mkdir -p "$r/vm" "$r/etc/systemd/system/user@.service.d"
  cat >"$r/vm/run" <<'G'
#!/bin/bash
# runs the command of /run/vmctl/cmd; output to the host's ports; status to the host
shopt -s nullglob
out=/dev/null err=/dev/null rc=
if [ -e /run/vmctl/uml ]; then
  out=/dev/ttyS0 err=/dev/ttyS1 rcf=/run/vmctl/rc
  stty -F $out raw -echo; stty -F $err raw -echo
else
  for p in /sys/class/virtio-ports/*; do
    read -r n <$p/name
    case $n in out) out=/dev/${p##*/};; err) err=/dev/${p##*/};; rc) rcf=/dev/${p##*/};; esac
  done
fi
mkfifo /run/vm.o /run/vm.e
busybox cat </run/vm.o >$out & c1=$!
busybox cat </run/vm.e >$err & c2=$!
in=/dev/null; [ -e /run/vmctl/stdin ] && in=/run/vmctl/stdin
[ -e /run/vmctl/v ] && echo "vm.sh: guest uptime at command: $(cut -d' ' -f1 /proc/uptime) s" >/dev/console
env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LANG=C.UTF-8 \
  bash /run/vmctl/cmd <$in >/run/vm.o 2>/run/vm.e
rc=$?
for i in {1..40}; do [ -d /proc/$c1 -o -d /proc/$c2 ] || break; sleep 0.05; done
echo $rc >$rcf
sync
busybox poweroff -f
G
  cat >"$r/vm/init" <<'G'
#!/bin/busybox sh
# --fast: PID 1 without systemd. The kernel mounted devtmpfs; the initrd (qemu) may have done more.
B=/bin/busybox
m() { $B grep -q " $1 " /proc/mounts 2>&- || $B mount -t "$2" -o "${4:-nosuid,nodev}" "$3" "$1"; }
[ -d /proc/1 ] || $B mount -t proc proc /proc; m /sys sysfs sysfs; m /dev devtmpfs dev nosuid; m /run tmpfs tmpfs; m /tmp tmpfs tmpfs
$B mkdir -p /dev/pts /dev/shm /dev/mqueue; m /dev/pts devpts devpts gid=5,mode=620,ptmxmode=666; m /dev/shm tmpfs tmpfs; m /dev/mqueue mqueue mqueue
m /sys/kernel/security securityfs securityfs; m /sys/fs/bpf bpf bpf
$B ln -snf /proc/self/fd /dev/fd; $B ln -snf fd/0 /dev/stdin; $B ln -snf fd/1 /dev/stdout; $B ln -snf fd/2 /dev/stderr
m /sys/fs/cgroup cgroup2 cgroup2 nosuid,nodev,noexec,nsdelegate
for c in $($B cat /sys/fs/cgroup/cgroup.controllers); do echo +$c >/sys/fs/cgroup/cgroup.subtree_control; done
$B hostname vm; $B ip link set lo up
. /vm/shares
/vm/run </dev/null &
while :; do wait; $B sleep 1; done
G
  cat >"$r/vm/shares" <<'G'
# mounts the host's folders: hostfs (uml) or virtiofs (qemu)
B=/bin/busybox n=0
if $B grep -q vmctl= /proc/cmdline; then
  ctl=$($B sed 's/.*vmctl=\([^ ]*\).*/\1/' /proc/cmdline)
  $B mkdir -p /run/vmctl; $B mount -t hostfs -o "$ctl" hostfs /run/vmctl
fi
while read -r ro d; do
  $B mkdir -p "$d"
  if [ -e /run/vmctl/uml ]; then $B mount -t hostfs -o "$ro,$d" hostfs "$d"
  else $B mount -t virtiofs -o $ro share$n "$d"; fi || echo "vm.sh: cannot mount $d" >/dev/console
  n=$((n+1))
done </run/vmctl/shares
G
  printf '#!/bin/busybox sh\n. /vm/shares\nexec /vm/run\n' >"$r/vm/sysrun"
  chmod 755 "$r"/vm/*
  cat >"$r/etc/systemd/system/vm.target" <<'G'
[Unit]
Requires=basic.target vm-cmd.service
Wants=dbus.service systemd-logind.service systemd-user-sessions.service
After=basic.target
AllowIsolate=yes
G
  cat >"$r/etc/systemd/system/vm-cmd.service" <<'G'
[Unit]
Description=the command
After=basic.target dbus.socket systemd-user-sessions.service
[Service]
Type=exec
ExecStart=/vm/sysrun
Delegate=yes
KillMode=process
TasksMax=infinity
LimitNOFILE=65536
StandardOutput=null
StandardError=null
G
  printf '[Service]\nDelegate=cpu cpuset io memory pids\n' >"$r/etc/systemd/system/user@.service.d/delegate.conf"
  local u
  for u in systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udev-trigger.service \
    systemd-sysctl.service systemd-random-seed.service systemd-update-utmp.service systemd-update-utmp-runlevel.service \
    systemd-binfmt.service kmod-static-nodes.service systemd-modules-load.service sys-kernel-debug.mount \
    sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount dev-hugepages.mount \
    proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount ldconfig.service systemd-firstboot.service \
    systemd-machine-id-commit.service systemd-journal-catalog-update.service systemd-journal-flush.service \
    systemd-hwdb-update.service systemd-update-done.service systemd-sysusers.service systemd-tmpfiles-setup-dev.service \
    systemd-tmpfiles-setup-dev-early.service systemd-tmpfiles-clean.timer systemd-remount-fs.service \
    systemd-network-generator.service systemd-pcrphase.service systemd-pcrphase-sysinit.service systemd-pcrphase-initrd.service \
    systemd-pcrmachine.service systemd-ask-password-console.path systemd-ask-password-wall.path systemd-boot-update.service \
    modprobe@.service apparmor.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    e2scrub_reap.service fstrim.timer getty.target getty-static.service remote-fs.target nftables.service \
    systemd-timesyncd.service systemd-pstore.service systemd-repart.service systemd-creds.socket systemd-hostnamed.socket \
    systemd-sysext.socket systemd-pcrextend.socket systemd-pcrlock.socket systemd-tpm2-setup.service systemd-tpm2-setup-early.service; do
    ln -sf /dev/null "$r/etc/systemd/system/$u"
  done
  mkdir -p "$r/etc/systemd/journald.conf.d" "$r/etc/systemd/system.conf.d"
  printf '[Journal]\nStorage=volatile\nSeal=no\nRateLimitBurst=0\n' >"$r/etc/systemd/journald.conf.d/vm.conf"
  printf '[Manager]\nDefaultTimeoutStartSec=240\nLogLevel=err\n' >"$r/etc/systemd/system.conf.d/vm.conf"
  echo 0123456789abcdef0123456789abcdef >"$r/etc/machine-id"; echo vm >"$r/etc/hostname"; echo '127.0.0.1 localhost vm' >"$r/etc/hosts"; : >"$r/etc/fstab"
  grep -q ^tester: "$r/etc/passwd" || chroot "$r" useradd -m -u 1000 -s /bin/bash tester
  grep -q ^tester: "$r/etc/subuid" || { echo tester:100000:65536 >>"$r/etc/subuid"; echo tester:100000:65536 >>"$r/etc/subgid"; }
}

make_initrd() { # $1 rootfs $2 out: busybox + the few modules the root disk and the shares need
  local r=$1 out=$2 k d m f i=0
  k=$(ls "$r/lib/modules" | grep cloud | head -1); d=$(mktemp -d "$CACHE/ird.XXXX")
  mkdir -p "$d"/{bin,m,dev,proc,sys,run,root}; cp "$r/bin/busybox" "$d/bin/busybox"; ln -s busybox "$d/bin/sh"
  for m in virtio_pci virtio_mmio virtio_console virtio_blk virtiofs; do
    modprobe -d "$r" -S "$k" --show-depends $m | awk '/^insmod/{print $2}'
  done | awk '!s[$0]++' | while read -r f; do
    i=$((i+1)); o=$d/m/$(printf %02d $i)-$(basename "${f%.xz}")
    case $f in *.xz) xz -dc "$f" >"$o";; *.zst) zstd -qdc "$f" >"$o";; *) cp "$f" "$o";; esac
    strip --strip-debug "$o" 2>/dev/null || :
  done
  cat >"$d/init" <<'G'
#!/bin/sh
B=/bin/busybox
$B mount -t devtmpfs dev /dev; $B mount -t sysfs sys /sys; $B mount -t proc proc /proc; $B mount -t tmpfs -o mode=755 run /run
for x in /m/*; do case $x in *virtio_pci*) [ -d /sys/bus/pci/devices/0000:00:00.0 ] || continue;; *virtio_mmio*) [ -d /sys/bus/pci/devices/0000:00:00.0 ] && continue;; esac; $B insmod $x; done
$B mkdir -p /run/vmctl; $B cp /ctl/* /run/vmctl/
i=0; while ! [ -b /dev/vda ]; do $B usleep 5000; i=$((i+1)); [ $i -gt 2000 ] && exit 1; done
$B mount -t ext4 -o rw,noatime /dev/vda /root || exit 1
for x in dev sys proc run; do $B mount -o move /$x /root/$x; done
read -r guestinit </root/run/vmctl/init
exec $B switch_root /root $guestinit
G
  chmod 755 "$d/init"; (cd "$d" && find . | cpio -o -H newc --quiet >"$out"); rm -rf "$d"
}

build() {
  local suite=bookworm uml=1 t0=$SECONDS
  while [ $# -gt 0 ]; do case $1 in --suite) suite=$2; shift;; --no-uml) uml=0;; *) die "build: $1?";; esac; shift; done
  [ "$(id -u)" = 0 ] || die "build needs root"
  for c in mmdebstrap mke2fs cpio lz4 xz zstd modprobe dpkg-deb patchelf; do command -v $c >/dev/null || die "needs $c (apt install mmdebstrap e2fsprogs cpio lz4 xz-utils zstd kmod patchelf qemu-system-x86)"; done
  local r; mkdir -p "$CACHE"; r=$(mktemp -d "$CACHE/build.XXXXXX"); chmod 755 "$r"
  B=$r; trap 'rm -rf "$B"' EXIT
  if [ $uml = 1 ]; then # user-mode-linux of sid: 6.1um and 6.12um die on CPUs with a big XSAVE area (AMX)
    rm -rf "$CACHE/uml.new"; mkdir -p "$CACHE/uml.new/apt/lists/partial" "$CACHE/uml.new/apt/cache/archives/partial" "$CACHE/uml.new/root"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $MIRROR sid main" >"$CACHE/uml.new/apt/sources.list"
    ( cd "$CACHE/uml.new" || exit 1
      o="-oDir::Etc::SourceList=$PWD/apt/sources.list -oDir::Etc::SourceParts=/dev/null -oDir::State::Lists=$PWD/apt/lists -oDir::Cache=$PWD/apt/cache -oAPT::Sandbox::User=root -oAcquire::Languages=none -oAcquire::Check-Valid-Until=false"
      [ -n "${VM_APT_OPTS:-}" ] && o=$VM_APT_OPTS || apt-get $o -qq update
      apt-get $o -qq download user-mode-linux/sid libc6/sid && for d in *.deb; do dpkg-deb -x "$d" root; done ) >&2 || { echo "vm.sh: no user-mode-linux; going on without" >&2; uml=0; }
  fi
  echo "vm.sh: building the $suite root ..." >&2
  mmdebstrap --quiet --variant=minbase --include=$PKGS --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' "$suite" "$r/root" "$MIRROR" >&2 || die "mmdebstrap failed"
  local k; k=$(ls "$r/root/lib/modules" | grep cloud | head -1)
  extract_vmlinux "$r/root/boot/vmlinuz-$k" "$r/vmlinux" || die "cannot unpack the kernel"
  strip -s "$r/vmlinux" -o "$r/vmlinux.s" 2>/dev/null && mv "$r/vmlinux.s" "$r/vmlinux"
  write_guest_files "$r/root"; make_initrd "$r/root" "$r/initrd"
  rm -rf "$r"/root/boot/* "$r"/root/initrd.img* "$r"/root/vmlinuz* "$r/root/lib/modules/$k/kernel/drivers/"{gpu,infiniband,media,net/ethernet,nvme,scsi,usb,hv,xen}
  chroot "$r/root" depmod "$k"
  if [ $uml = 1 ]; then
    mkdir -p "$CACHE/uml.new/lib"
    cp -a "$CACHE"/uml.new/root/usr/bin/linux.uml "$CACHE/uml.new/"; cp -L "$CACHE"/uml.new/root/usr/lib/x86_64-linux-gnu/{libc.so.6,ld-linux-x86-64.so.2} "$CACHE/uml.new/lib/"
    local um; um=$(ls "$CACHE/uml.new/root/usr/lib/uml/modules"); cp -a "$CACHE/uml.new/root/usr/lib/uml/modules/$um" "$r/root/lib/modules/"
    chroot "$r/root" depmod "$um"
    patchelf --set-interpreter "$CACHE/uml/lib/ld-linux-x86-64.so.2" --set-rpath "$CACHE/uml/lib" "$CACHE/uml.new/linux.uml" || die "patchelf"
    rm -rf "$CACHE"/uml.new/{apt,root} "$CACHE"/uml.new/*.deb
  fi
  truncate -s 2G "$r/root.img"
  mke2fs -q -t ext4 -O ^has_journal -m 0 -d "$r/root" -E lazy_itable_init=1,root_owner=0:0 "$r/root.img" || die "mke2fs"
  echo "$suite $k" >"$r/version"
  mkdir -p "$CACHE/vm"; mv -f "$r"/{root.img,vmlinux,initrd,version} "$CACHE/vm/"
  rm -rf "$CACHE/uml"; [ $uml = 1 ] && mv "$CACHE/uml.new" "$CACHE/uml"
  echo "vm.sh: built $(cat "$CACHE/vm/version") in $((SECONDS-t0)) s, $(du -sm "$CACHE" | cut -f1) MB" >&2
}

# ---------------------------------------------------------------- run
default_engine() { [ -x "$CACHE/uml/linux.uml" ] && echo uml || echo qemu; }
case ${1-} in build) shift; build "$@"; exit;; built) [ -e "$CACHE/vm/root.img" ]; exit;; engine) default_engine; exit;; ''|-h|--help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 126;; esac
fast=0 engine=${VM_ENGINE:-} shares=() envs=() stdin=0 tmo=300 mem=1024 cpus=2 verbose=0 append= machine=${VM_MACHINE:-q35,sata=off,smbus=off,usb=off,vmport=off}
while [ $# -gt 0 ]; do case $1 in
  --fast) fast=1;; --engine) engine=$2; shift;; --share) shares+=("$2"); shift;; --env) envs+=("$2"); shift;;
  --stdin) stdin=1;; --timeout) tmo=$2; shift;; --mem) mem=$2; shift;; --cpus) cpus=$2; shift;; --append) append=$2; shift;;
  -v) verbose=1;; --) shift; break;; -*) die "unknown option $1";; *) break;;
esac; shift; done
[ $# -gt 0 ] || die "no command"
[ -e "$CACHE/vm/root.img" ] || die "no image: run '$0 build' first"
[ -n "$engine" ] || engine=$(default_engine)
[ ${#shares[@]} -gt 0 ] || shares=("$PWD")

RUN=$(mktemp -d "${TMPDIR:-/tmp}/vm.XXXXXX"); mkdir "$RUN/ctl"; pids=()
cleanup() { local p; for p in "${pids[@]}"; do kill "$p" 2>/dev/null; done; wait 2>/dev/null; rm -rf "$RUN"; }
trap cleanup EXIT; trap 'exit 130' INT; trap 'exit 143' TERM
{ for e in "${envs[@]}"; do printf 'export %q\n' "$e"; done
  printf 'cd %q 2>/dev/null || cd /\nexec' "$PWD"; printf ' %q' "$@"; echo; } >"$RUN/ctl/cmd"
[ $stdin = 1 ] && cat >"$RUN/ctl/stdin"
[ $verbose = 1 ] && : >"$RUN/ctl/v"
: >"$RUN/ctl/shares"
for s in "${shares[@]}"; do
  ro=rw; case $s in *:ro) ro=ro; s=${s%:ro};; esac
  s=$(readlink -f "$s") || die "no folder $s"; [ -d "$s" ] || die "no folder $s"; [ "$s" != / ] || die "will not share /"
  echo "$ro $s" >>"$RUN/ctl/shares"
done
[ $fast = 1 ] && ginit=/vm/init || ginit=/lib/systemd/systemd
kcl="quiet loglevel=1 mitigations=off audit=0 selinux=0 panic=-1 raid=noautodetect random.trust_cpu=on systemd.unit=vm.target systemd.show_status=0 systemd.log_level=err systemd.log_target=console systemd.unified_cgroup_hierarchy=1 $append"
[ $verbose = 1 ] && kcl=${kcl/quiet loglevel=1/loglevel=7}
t0=$EPOCHREALTIME
mkfifo "$RUN/o" "$RUN/e"; cat <"$RUN/o" & co=$!; cat <"$RUN/e" >&2 & ce=$!
exec 3>"$RUN/o" 4>"$RUN/e"

if [ "$engine" = uml ]; then
  : >"$RUN/ctl/uml"
  con=null; [ $verbose = 1 ] && con=fd:2
  timeout --foreground -k 5 "$tmo" "$CACHE/uml/linux.uml" \
    mem=${mem}M ubd0="$RUN/cow,$CACHE/vm/root.img" root=/dev/ubda rootfstype=ext4 rw init=$ginit \
    con=null con0=null,$con con1=null ssl=null ssl0=null,fd:3 ssl1=null,fd:4 uml_dir="$RUN/" umid=vm seccomp=${VM_UML_SECCOMP:-auto} \
    noreboot vmctl="$RUN/ctl" lsm=apparmor $kcl </dev/null >"$RUN/log" 2>&1 &
  pid=$!; pids+=($pid); exec 3>&- 4>&-; wait $pid 2>/dev/null; st=$?; wait $co $ce
  [ $verbose = 1 ] && cat "$RUN/log" >&2
  rcf=$RUN/ctl/rc
elif [ "$engine" = qemu ]; then
  echo $ginit >"$RUN/ctl/init"; : >"$RUN/rc"
  (cd "$RUN" && printf '%s\n' ctl ctl/* | cpio -o -H newc --quiet >ctl.cpio && cat "$CACHE/vm/initrd" ctl.cpio >initrd)
  mach=(-M $machine,memory-backend=mem); bus=pci # not microvm: under TCG its kernel cannot calibrate TSC/APIC timer and hangs
  vfsd=; for v in /usr/libexec/virtiofsd /usr/lib/qemu/virtiofsd; do [ -x $v ] && { vfsd=$v; break; }; done
  fs=(); n=0
  [ -n "$vfsd" ] || die "no virtiofsd"
  while read -r ro s; do
    if [ $vfsd = /usr/lib/qemu/virtiofsd ]; then "$vfsd" --socket-path="$RUN/fs$n" -o source="$s" -o cache=auto -o sandbox=chroot -o xattr >"$RUN/fs$n.log" 2>&1 3>&- 4>&- &
    else "$vfsd" --socket-path="$RUN/fs$n" --shared-dir "$s" --cache auto --sandbox chroot --xattr >"$RUN/fs$n.log" 2>&1 3>&- 4>&- & fi
    pids+=($!); fs+=(-chardev socket,id=fs$n,path="$RUN/fs$n" -device vhost-user-fs-$bus,chardev=fs$n,tag=share$n); n=$((n+1))
  done <"$RUN/ctl/shares"
  for ((i=0;i<n;i++)); do for ((j=0;j<500;j++)); do grep -q " 00010000 .* $RUN/fs$i\$" /proc/net/unix && break; sleep 0.02; done; done # listening
  con=file:$RUN/log
  timeout --foreground -k 5 "$tmo" qemu-system-x86_64 "${mach[@]}" -accel tcg,thread=multi -cpu max -smp $cpus -m $mem \
    -object memory-backend-memfd,id=mem,size=${mem}M,share=on -nodefaults -no-user-config -display none -nic none -no-reboot \
    -kernel "$CACHE/vm/vmlinux" -initrd "$RUN/initrd" -append "console=ttyS0 nokaslr no_timer_check tsc=reliable rcupdate.rcu_expedited=1 cryptomgr.notests reboot=t lsm=apparmor $kcl" \
    -drive id=d0,if=none,file.locking=off,file="$CACHE/vm/root.img",format=raw,snapshot=on,cache=unsafe -device virtio-blk-$bus,drive=d0 "${fs[@]}" \
    -device virtio-serial-$bus -chardev file,id=o,path="$RUN/o" -device virtserialport,chardev=o,name=out \
    -chardev file,id=e,path="$RUN/e" -device virtserialport,chardev=e,name=err \
    -chardev file,id=r,path="$RUN/rc" -device virtserialport,chardev=r,name=rc \
    -serial "$con" -qmp unix:"$RUN/mon",server=on,wait=off </dev/null >"$RUN/qlog" 2>&1 3>&- 4>&- &
  pid=$!; pids+=($pid)
  for ((j=0;j<100;j++)); do [ -S "$RUN/mon" ] && break; kill -0 $pid 2>/dev/null || break; sleep 0.05; done
  exec 3>&- 4>&-; wait $pid 2>/dev/null; st=$?; wait $co $ce
  [ $verbose = 1 ] && cat "$RUN/log" "$RUN/qlog" >&2
  rcf=$RUN/rc
else die "engine $engine?"; fi

[ $verbose = 1 ] && awk -v a=$t0 -v b=$EPOCHREALTIME 'BEGIN{printf "vm.sh: %.2f s in all\n", b-a}' >&2
rc=; [ -s "$rcf" ] && read -r rc <"$rcf"
[ -n "$rc" ] && exit "$rc"
[ $st = 124 ] || [ $st = 137 ] && { echo "vm.sh: timed out after $tmo s" >&2; exit 124; }
echo "vm.sh: the guest died (engine $engine, status $st)" >&2; tail -n 5 "$RUN"/*log >&2 2>/dev/null
exit 125
