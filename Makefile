# make demo      builds rt and runs a container: its output is what you see
# make test      unit and integration tests on this machine's kernel (as root)
# make stress    thousands of runs and execs, four at a time, and every two commands at once (as root)
# make test-vm   control groups of version 2 with every controller, systemd and AppArmor, in guests
# make test-criu checkpoint and restore, with a CRIU that works on this kernel (as root)
# make test-clients   podman, buildah, docker, containerd and its CRI plugin on rt, in a world of their own
# make test-vm-full   the same under QEMU: slow, with cpuset, hugetlb and pressure as well
# make bench-net what networks cost, compared
# make bench-clients   what a container takes of ctr, podman and docker with rt, runc and crun
# make bench     races rt against the runc and the crun of this machine (as root)
# make test-oracles   limits compared with those of cgroups-rs, look-ups with those of libpathrs (as root)
# make test-oracles-vm   the limits, in guests with the controllers that this machine lacks
# make fuzz      parsers and the plan against libFuzzer, FUZZ_TIME (60) seconds each
# make check     formatting, lints, unit tests; no root
# make install   the program, its manual pages and completions; PREFIX (/usr/local) and DESTDIR as usual
# make deb       a Debian package, in $(TARGET)/debian
# make clean     everything that was built here
#
# What a target lacks it installs with apt-get; only make and Rust must be here.
# make test TEST=word runs the tests with that word in their name.

SHELL   := /bin/sh
PREFIX  ?= /usr/local
DESTDIR ?=
TEST    ?=

# A fresh toolchain is not always on the PATH of the shell that runs make.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/local/sbin:/usr/sbin:/sbin

CARGO       ?= cargo
HOST_TRIPLE := $(shell PATH="$(PATH)" rustc -vV 2>/dev/null | sed -n 's/^host: //p')
TRIPLE      := $(or $(CARGO_BUILD_TARGET),$(HOST_TRIPLE))
TARGET      := $(abspath $(or $(CARGO_TARGET_DIR),target))
RELEASE     := $(TARGET)/$(TRIPLE)/release
BINARY      := $(RELEASE)/rt

BUNDLES := bundles/hello bundles/shell bundles/limits bundles/web bundles/pair/server bundles/pair/client

# The release whose lints the code is kept clean of: a newer clippy knows more
# of them, and that must not fail the tests of a stranger's machine.
LINTS_OF := 1.95

# What runs as root. The environment is kept: RT and RUST_BACKTRACE are the tests'.
ifeq ($(shell id -u),0)
AS_ROOT :=
RUNNER  := --config "target.'cfg(unix)'.runner = ['integration/run.sh']"
else
AS_ROOT := sudo -E env PATH="$(PATH)"
# cargo builds as the user; only the test programs run as root.
RUNNER  := --config "target.'cfg(unix)'.runner = ['sudo', '-E', 'env', 'PATH=$(PATH)', 'integration/run.sh']"
endif

# $(call need,TEST PACKAGES[,…]): a shell fragment that adds PACKAGES to the list
# of missing ones unless the shell command TEST succeeds.
need = { $(1); } >/dev/null 2>&1 || missing="$$missing $(2)";

# $(call install-missing,NEEDS): installs what the needs have found missing.
define install-missing
	@missing=; $(1) \
	[ -n "$$missing" ] || exit 0; \
	if ! command -v apt-get >/dev/null; then \
	    echo "make: please install (Debian's names):$$missing" >&2; exit 1; fi; \
	root=; \
	if [ "$$(id -u)" != 0 ]; then \
	    command -v sudo >/dev/null || { \
	        echo "make: as root, please: apt-get install$$missing" >&2; exit 1; }; \
	    root=sudo; fi; \
	echo "installing$$missing"; \
	$$root apt-get -qq update && \
	$$root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
	    -o Dpkg::Use-Pty=0 install $$missing >/dev/null
endef

# A static program needs libc.a, which gcc alone does not bring.
NEED_LINKER  := $(call need,cc -print-file-name=libc.a | grep -q /,gcc libc6-dev)
NEED_BUSYBOX := $(call need,sh bundles/rootfs.sh --check,busybox-static)
# The unit tests hold filters of system calls against libseccomp's.
NEED_UNITS   := $(call need,cc -print-file-name=libseccomp.so | grep -q /,libseccomp-dev)
NEED_TESTS   := $(NEED_UNITS) \
                $(call need,command -v runc,runc) \
                $(call need,command -v ip,iproute2) \
                $(call need,command -v tmux,tmux) \
                $(call need,command -v nft,nftables) \
                $(call need,command -v iptables-nft && command -v iptables-legacy,iptables) \
                $(call need,command -v conntrack,conntrack) \
                $(call need,command -v dig,dnsutils) \
                $(call need,command -v python3,python3-minimal) \
                $(call need,command -v unshare && command -v nsenter && command -v setpriv,util-linux) \
                $(call need,command -v losetup,mount) \
                $(call need,command -v newuidmap,uidmap)

# The guests: their image is built once, from Debian's packages, in the user's cache.
VM      := integration/vm/vm.sh
VM_TIME := 1500
NEED_VM := $(call need,command -v mmdebstrap,mmdebstrap) $(call need,command -v mke2fs,e2fsprogs) \
           $(call need,command -v cpio,cpio) $(call need,command -v lz4,lz4) $(call need,command -v xz,xz-utils) \
           $(call need,command -v zstd,zstd) $(call need,command -v modprobe,kmod) \
           $(call need,command -v patchelf,patchelf)
NEED_QEMU := $(call need,command -v qemu-system-x86_64,qemu-system-x86)
# Part of qemu's packages in Debian 12.
NEED_SHARES := $(call need,test -x /usr/libexec/virtiofsd || test -x /usr/lib/qemu/virtiofsd,virtiofsd)
# Where Debian has no user-mode Linux that runs here.
NEED_ENGINE := [ "$$($(AS_ROOT) $(VM) engine)" = uml ] ||
# Control files that the kernels of the guests have, without which tests would have nothing to test.
FILES_UML    := cpu.max io.max memory.max pids.max
FILES_HYBRID := blkio.throttle.read_bps_device cpu.cfs_quota_us devices.list memory.max net_cls.classid pids.max
FILES_QEMU   := $(FILES_UML) cpu.pressure cpuset.cpus hugetlb.2MB.rsvd.max io.weight
# $(call in-vm,OPTIONS,FILES,TESTS): the integration tests with TESTS in their names, in a guest.
in-vm = $(AS_ROOT) $(VM) $(1) --env "RT_CONTROL_FILES=$(2)" --timeout $(VM_TIME) --share $(CURDIR) --share $(TARGET) \
    integration/run.sh $$(ls -t $(RELEASE)/deps/integration-* | grep -v '\.d$$' | head -1) $(3) --include-ignored
# Limits with systemd.
LIMITS := systemd:: cgroups::devices cgroups::events::throttled cgroups::fields cgroups::hierarchies cgroups::limits

# The oracles make a disk and views of the control groups.
NEED_ORACLES := $(call need,command -v losetup,mount) $(call need,command -v unshare,util-linux)
# A package of its own, whose program is the one in RT.
ORACLES := --quiet --locked --manifest-path integration/oracles/Cargo.toml --target-dir $(TARGET)/oracles
# $(call oracles-in-vm,OPTIONS,FILES): the limits, in a guest.
oracles-in-vm = $(AS_ROOT) $(VM) $(1) --env "RT_CONTROL_FILES=$(2)" --env RT=$(BINARY) --timeout $(VM_TIME) \
    --share $(CURDIR) --share $(TARGET) integration/run.sh \
    $$(ls -t $(TARGET)/oracles/$(TRIPLE)/debug/deps/oracles-* | grep -v '\.d$$' | head -1) limits::

# Debian 12's own is too old for newer kernels.
NEED_CRIU := $(call need,criu check || command -v mmdebstrap,mmdebstrap)

# What Debian's CNI plugins and a traffic generator are compared with.
NEED_BENCH_NET := $(call need,test -x /usr/lib/cni/portmap,containernetworking-plugins) \
                $(call need,command -v iperf3,iperf3)

# The clients of integration/clients. What Debian starts of them it starts as always.
NEED_CLIENTS := $(call need,command -v runc,runc) \
                $(call need,command -v podman,podman) \
                $(call need,command -v conmon,conmon) \
                $(call need,test -x /usr/lib/podman/netavark,netavark) \
                $(call need,test -x /usr/libexec/podman/catatonit,catatonit) \
                $(call need,command -v buildah,buildah) \
                $(call need,command -v containerd,containerd) \
                $(call need,test -x /usr/bin/docker && command -v dockerd,docker.io) \
                $(call need,command -v docker-init,tini) \
                $(call need,test -x /usr/lib/cni/bridge,containernetworking-plugins) \
                $(call need,/usr/bin/python3 -c "import grpc",python3-grpcio) \
                $(call need,test -x /lib/systemd/systemd,systemd) \
                $(call need,command -v newuidmap,uidmap) \
                $(call need,command -v ip,iproute2) \
                $(call need,command -v iptables,iptables) \
                $(call need,command -v unshare,util-linux)

NEED_BENCH   := $(call need,command -v runc,runc) \
                $(call need,command -v crun,crun) \
                $(call need,command -v strace,strace) \
                $(call need,command -v unshare,util-linux)

# Two apt-get at a time would fail.
.NOTPARALLEL:
.PHONY: all demo test test-criu test-oracles test-oracles-vm test-clients test-vm test-vm-full vm stress fuzz bench bench-net bench-clients check lint doc build share rootfs install deb clean toolchain linker root
all: build

demo: root build rootfs
	@$(AS_ROOT) $(BINARY) delete --force hello-demo 2>/dev/null || true
	@echo rt run --bundle bundles/hello hello-demo
	@$(AS_ROOT) $(BINARY) run --bundle bundles/hello hello-demo

# The profile is release, so that what is tested is what is installed.
test: toolchain root
	$(call install-missing,$(NEED_LINKER) $(NEED_BUSYBOX) $(NEED_TESTS))
	@if ! $(CARGO) fmt --version >/dev/null 2>&1 || ! $(CARGO) clippy --version >/dev/null 2>&1; then \
	    echo "formatting and lints are not checked: this toolchain has no rustfmt and clippy"; \
	elif ! rustc --version | grep -q '^rustc $(LINTS_OF)\.'; then \
	    echo "formatting and lints are not checked: they are kept for Rust $(LINTS_OF) (make check checks them)"; \
	else $(MAKE) --no-print-directory lint; fi
	@$(MAKE) --no-print-directory rootfs
	$(CARGO) test --quiet --locked --release --no-run
	@$(CARGO) $(RUNNER) test --locked --release $(TEST)

test-oracles: build root
	$(call install-missing,$(NEED_BUSYBOX) $(NEED_ORACLES))
	$(CARGO) test $(ORACLES) --no-run
	@RT=$(or $(RT),$(BINARY)) $(CARGO) $(subst integration/run.sh,$(CURDIR)/integration/run.sh,$(RUNNER)) test $(ORACLES) $(TEST)

# A host of version 2, and one with memory on version 2 and the other controllers on version 1.
test-oracles-vm: build vm
	$(CARGO) test $(ORACLES) --no-run
	$(call oracles-in-vm,--fast,$(FILES_UML))
	$(call oracles-in-vm,--append systemd.unified_cgroup_hierarchy=0,memory.max net_cls.classid pids.max)

stress: toolchain root
	$(call install-missing,$(NEED_LINKER) $(NEED_BUSYBOX))
	$(CARGO) test --quiet --locked --release --no-run
	@RT_STRESS=2000 $(CARGO) $(RUNNER) test --locked --release --test integration stress:: -- --test-threads=1
	@RT_PAIRS=100 $(CARGO) $(RUNNER) test --locked --release --test integration pairs:: -- --test-threads=1
	@RT_SWEEP_STEP=1 $(CARGO) $(RUNNER) test --locked --release --test integration netns::sweep:: -- --test-threads=1

# What makes libFuzzer see which ways the program takes; a stable compiler knows it. The findings of
# libFuzzer stay in fuzz/corpus, what breaks a target in fuzz/broken-*.
FUZZ_TIME    ?= 60
# 0 is another one each time. With a fixed one a change is judged by what it does and not by luck.
FUZZ_SEED    ?= 0
FUZZ_TARGETS := config mounts seccomp ids annotations network
FUZZ_FLAGS   := --cfg fuzzing -A warnings -C codegen-units=1 -C passes=sancov-module $(foreach flag,\
    level=4 inline-8bit-counters pc-table trace-compares,-C llvm-args=-sanitizer-coverage-$(flag))

fuzz: toolchain
	$(call install-missing,$(call need,command -v c++,g++))
	@RUSTFLAGS="$(FUZZ_FLAGS)" $(CARGO) build --quiet --locked --release \
	    --manifest-path fuzz/Cargo.toml --target-dir $(TARGET)/fuzz
	@for target in $(FUZZ_TARGETS); do \
	    mkdir -p fuzz/corpus/$$target; echo "== $$target"; \
	    RT_FUZZ=$$target $(TARGET)/fuzz/$(TRIPLE)/release/rt-fuzz -seed=$(FUZZ_SEED) -max_total_time=$(FUZZ_TIME) \
	        -timeout=10 -rss_limit_mb=2048 -max_len=8192 -print_final_stats=1 -artifact_prefix=fuzz/broken-$$target- \
	        fuzz/corpus/$$target fuzz/seeds/$$target || exit 1; done

# RT=/usr/sbin/runc puts another runtime in the place of rt.
test-clients: build root rootfs
	$(call install-missing,$(NEED_CLIENTS) $(NEED_CRIU))
	@criu=$$($(AS_ROOT) integration/criu.sh) && \
	    $(AS_ROOT) env RT=$(or $(RT),$(BINARY)) PATH="$$criu:$(PATH)" integration/clients/world.sh $(CURDIR)/integration/clients/run.py $(TEST)

test-criu: toolchain root
	$(call install-missing,$(NEED_LINKER) $(NEED_BUSYBOX) $(NEED_TESTS) $(NEED_CRIU))
	$(CARGO) test --quiet --locked --release --no-run --test integration
	@criu=$$($(AS_ROOT) integration/criu.sh) && \
	    CRIU=$$criu $(CARGO) $(RUNNER) test --locked --release --test integration checkpoint:: -- --include-ignored

# A host with version 2 alone and AppArmor, with systemd on one, and with systemd on a hybrid one.
test-vm: vm
	$(call in-vm,--fast,$(FILES_UML),cgroups:: rootless:: annotations:: lsm::)
	$(call in-vm,,$(FILES_UML),$(LIMITS) rootless::)
	$(call in-vm,--append systemd.unified_cgroup_hierarchy=0,$(FILES_HYBRID),$(LIMITS) cgroups::mounts)

test-vm-full: vm
	$(call install-missing,$(NEED_QEMU))
	$(call install-missing,$(NEED_SHARES))
	$(call in-vm,--engine qemu --fast,$(FILES_QEMU),cgroups::)
	$(call in-vm,--engine qemu,$(FILES_QEMU),$(LIMITS))

vm: toolchain root
	$(call install-missing,$(NEED_LINKER) $(NEED_VM))
	@$(AS_ROOT) $(VM) built || $(AS_ROOT) $(VM) build
	$(call install-missing,$(NEED_ENGINE) { $(NEED_QEMU) };)
	$(call install-missing,$(NEED_ENGINE) { $(NEED_SHARES) };)
	$(CARGO) test --quiet --locked --release --no-run --test integration

# Figures of `rt netns`: add, del, names and throughput, beside Debian's CNI plugins and one rule
# written by hand. It fails where docs/networking.md's promises are not kept.
bench-net: build root
	$(call install-missing,$(NEED_TESTS) $(NEED_BENCH_NET))
	@$(AS_ROOT) unshare -n -m python3 integration/netns/bench.py $(BINARY)

# crun takes no hybrid control groups: a view of version 1, where the host has one.
bench-clients: build root rootfs
	$(call install-missing,$(NEED_CLIENTS) $(NEED_BENCH))
	@$(AS_ROOT) env RT=$(BINARY) unshare -m integration/views/v1.sh integration/clients/world.sh \
	    $(CURDIR)/integration/clients/bench.py

bench: toolchain root
	$(call install-missing,$(NEED_LINKER) $(NEED_BUSYBOX) $(NEED_BENCH))
	$(CARGO) bench --quiet --locked --no-run --bench lifecycle
	@$(CARGO) $(RUNNER) bench --quiet --locked --bench lifecycle

check: linker
	@$(CARGO) fmt --version >/dev/null 2>&1 && $(CARGO) clippy --version >/dev/null 2>&1 || \
	    rustup component add rustfmt clippy
	@$(MAKE) --no-print-directory lint
	$(call install-missing,$(NEED_UNITS))
	$(CARGO) test --quiet --locked --bin rt $(TEST)

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --quiet --locked --all-targets -- -D warnings

# The documentation of every item, private ones too. A link that leads nowhere is an error.
doc: linker
	@RUSTDOCFLAGS="-D warnings" $(CARGO) doc --quiet --locked --no-deps --document-private-items

build: linker
	$(CARGO) build --quiet --locked --release

# Completions and manual pages, into $(RELEASE)/share: src/cli/tests/share.rs.
share: linker
	@$(CARGO) test --quiet --locked --release --bin rt cli::tests::share >/dev/null

rootfs:
	$(call install-missing,$(NEED_BUSYBOX))
	@for bundle in $(BUNDLES); do sh bundles/rootfs.sh $$bundle || exit 1; done

# Of what is installed `rt --version` names the commit.
install: export RT_COMMIT := $(shell git describe --always --dirty 2>/dev/null)
install: build share
	@root=; mkdir -p "$(DESTDIR)$(PREFIX)/bin" 2>/dev/null && [ -w "$(DESTDIR)$(PREFIX)/bin" ] || root=sudo; \
	[ -z "$$root" ] || command -v sudo >/dev/null || { \
	    echo "make: $(DESTDIR)$(PREFIX)/bin: not writable, and there is no sudo here" >&2; exit 1; }; \
	share="$(DESTDIR)$(PREFIX)/share"; from=$(RELEASE)/share; set -ex; \
	$$root install -D -m 755 $(BINARY) "$(DESTDIR)$(PREFIX)/bin/rt"; \
	$$root install -D -m 644 -t "$$share/man/man1" $$from/man/*.1; \
	$$root install -D -m 644 -t "$$share/bash-completion/completions" $$from/rt; \
	$$root install -D -m 644 -t "$$share/zsh/site-functions" $$from/_rt; \
	$$root install -D -m 644 -t "$$share/fish/vendor_completions.d" $$from/rt.fish

deb: export RT_COMMIT := $(shell git describe --always --dirty 2>/dev/null)
deb: build share
	@$(CARGO) deb --version >/dev/null 2>&1 || $(CARGO) install --quiet --locked cargo-deb
	$(CARGO) deb --no-build --no-strip --target $(TRIPLE)

clean: toolchain
	$(CARGO) clean --quiet
	rm -rf --one-file-system $(BUNDLES:=/rootfs) $(BUNDLES:=/.rootfs.*) $(BUNDLES:=/etc)

toolchain:
	@command -v $(CARGO) >/dev/null && rustc --version >/dev/null || { \
	    echo "make: the Rust toolchain is missing: see https://rustup.rs" >&2; exit 1; }

linker: toolchain
	$(call install-missing,$(NEED_LINKER))

root:
	@[ "$$(id -u)" = 0 ] || command -v sudo >/dev/null || { \
	    echo "make: containers are started as root, and there is no sudo here: run make as root" >&2; exit 1; }
