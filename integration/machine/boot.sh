# The first process of a host: it makes a machine out of new namespaces, and
# becomes systemd. What it is told is in HOST (a folder that keeps what this
# machine changes), NAME, HIERARCHY, SOURCE and PROGRAMS.
set -e
mount --make-rprivate / # nothing of what follows is seen outside
hostname "$NAME"

# Under other names first, for the folders that are covered may be below them.
mkdir -p "$HOST/run" "$HOST/dev" "$HOST/tmp"
mount -t tmpfs -o mode=0755 tmpfs "$HOST/run"
mkdir -p "$HOST/run/test/source" "$HOST/run/test/programs"
mount --bind "$SOURCE" "$HOST/run/test/source"
mount --bind "$PROGRAMS" "$HOST/run/test/programs"
mount -t tmpfs -o mode=0755 tmpfs "$HOST/dev"
for node in null zero full random urandom tty; do
	: >"$HOST/dev/$node"
	mount --bind "/dev/$node" "$HOST/dev/$node"
done
mkdir "$HOST/dev/pts" "$HOST/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$HOST/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$HOST/dev/shm"
ln -s pts/ptmx "$HOST/dev/ptmx"
ln -s /proc/self/fd "$HOST/dev/fd"
ln -s fd/0 "$HOST/dev/stdin"
ln -s fd/1 "$HOST/dev/stdout"
ln -s fd/2 "$HOST/dev/stderr"
mount -t tmpfs -o mode=1777 tmpfs "$HOST/tmp"
for folder in etc usr var; do
	mkdir -p "$HOST/$folder/upper" "$HOST/$folder/work"
	mount -t overlay -o "lowerdir=/$folder,upperdir=$HOST/$folder/upper,workdir=$HOST/$folder/work" overlay "$HOST/$folder"
done
mount -o remount,bind,ro /
for folder in run dev etc usr var tmp; do # tmp last: HOST may be there
	mount --no-mtab --move "$HOST/$folder" "/$folder"
done
mount -t tmpfs -o mode=1777 tmpfs /var/tmp
mount -t proc proc /proc
ip link set lo up
mount -t sysfs -o ro sysfs /sys
mount -t tmpfs -o mode=0755 tmpfs /sys/fs/cgroup
mkdir /sys/fs/cgroup/systemd
mount -t cgroup -o "none,name=$HIERARCHY" cgroup /sys/fs/cgroup/systemd
printf '#subsys_name\thierarchy\tnum_cgroups\tenabled\n' >/run/test/cgroups # controllers are the whole machine's
mount --bind /run/test/cgroups /proc/cgroups

# The first time, forget what this machine starts at boot but the journal, users,
# folders, and the bus.
if ! test -e /etc/made-for-test; then
	rm -rf /etc/systemd/system/*.wants /usr/lib/systemd/system/*.wants /usr/lib/systemd/system-generators /etc/rc?.d /etc/fstab
	cd /usr/lib/systemd/system
	mkdir sysinit.target.wants sockets.target.wants multi-user.target.wants
	ln -s ../systemd-journald.service ../systemd-sysusers.service ../systemd-tmpfiles-setup.service sysinit.target.wants/
	ln -s ../systemd-journald.socket ../systemd-journald-dev-log.socket ../dbus.socket sockets.target.wants/
	mkdir -p /etc/systemd/journald.conf.d
	printf '[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\n' >/etc/systemd/journald.conf.d/test.conf
	systemd-id128 new >/etc/machine-id
	echo "$NAME" >/etc/hostname
	: >/etc/made-for-test
fi

mount --make-rshared /
cd /
exec env -i container=x PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=multi-user.target systemd.legacy_systemd_cgroup_controller=yes
