#!/bin/busybox sh
# The guest's first process. Mounts what a host has, runs the tests that /vm/tests lists one after the other,
# each in a process of its own, says over the second serial port where it has got to, and powers off.
#
# The kernel writes its log to the first serial port, so nothing here may.

# What is there already stays.
/bin/busybox --install -s /bin 2>/dev/null
export PATH=/usr/sbin:/bin:/usr/bin

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
# The root is in memory itself. Nothing is mounted over /tmp or /run: the project may lie there.
chmod 1777 /tmp /var/tmp
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracing /sys/kernel/tracing
mount -t debugfs debug /sys/kernel/debug

# As on a host that systemd runs.
echo "+cpu +io +memory +pids" >/sys/fs/cgroup/cgroup.subtree_control
for module in /vm/modules/"$(uname -r)"/*.ko; do
    insmod "$module" || echo "cannot load $module" >/dev/kmsg
done
hostname chokepoint-vm
ip link set lo up
# The emulation makes every interrupt look too long, for which the kernel would lower the highest sampling
# rate.
echo 0 >/proc/sys/kernel/perf_cpu_time_max_percent

stty -F /dev/ttyS1 raw -echo
exec </dev/null >/dev/ttyS1 2>&1

# Sets MARK, LIMIT_S and what the tests find in their environment.
. /vm/environment

# Not the shell's own echo: the death of a leftover process interrupts what the shell writes, and its words are
# lost.
say() {
    /bin/echo "$MARK$*"
}

say ready
index=0
while read -r directory binary name <&3; do
    say begin "$index"
    cd "$directory" && timeout -s KILL "$LIMIT_S" "$binary" --exact "$name" --nocapture --test-threads=1 3<&-
    say end "$index" "$?"
    # Whatever a test left behind must not run along with the next one.
    kill -KILL -1
    index=$((index + 1))
done 3</vm/tests
say done
# Whoever listens ends the machine now. Powering off at once would lose what is on its way.
sleep 60
poweroff -f
