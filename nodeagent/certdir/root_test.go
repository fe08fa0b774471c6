package certdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// noWaitAtExit takes the second away that the race detector has a process wait.
const noWaitAtExit = "GORACE=atexit_sleep_ms=0"

// asChild runs the calling test again, as a process with mounts of its own
// that end with it, and tells which of the two this is: the child gets a
// directory that every user can reach, the parent false. These tests need
// root, and without say so.
func asChild(t *testing.T) (dir string, child bool) {
	t.Helper()
	if dir := os.Getenv("CERTDIR_CHILD"); dir != "" {
		// What is mounted here is to be seen here alone.
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		return dir, true
	}
	if os.Geteuid() != 0 {
		t.Log("this test needs root: it mounts file systems and changes users")
		return "", false
	}
	dir = t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "CERTDIR_CHILD="+dir, noWaitAtExit)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("the child process: %v\n%s", err, out)
	}
	return "", false
}

func mount(t *testing.T, kind, at string, flags uintptr, options string) {
	t.Helper()
	if err := syscall.Mount(kind, at, kind, flags, options); err != nil {
		t.Fatal(err)
	}
}

// TestFullDisk: a real one. The old set stays, for all readers and after each
// try; the next try with space succeeds. (Negative test 21.)
func TestFullDisk(t *testing.T) {
	base, child := asChild(t)
	if !child {
		return
	}
	for _, free := range []int{0, 1, 2} { // pages; a set takes three
		t.Run(fmt.Sprint(free), func(t *testing.T) {
			at := filepath.Join(base, fmt.Sprint(free))
			if err := os.Mkdir(at, 0o755); err != nil {
				t.Fatal(err)
			}
			mount(t, "tmpfs", at, 0, "size=256k")
			d, old, set := dirIn(at), newSet(t, "old"), newSet(t, "new")
			s := open(t, d)
			for _, set := range []Set{newSet(t, "older"), old} {
				if err := s.Install(set); err != nil {
					t.Fatal(err)
				}
			}
			fill(t, at+"/ballast", free)
			for range 3 {
				wantError(t, s.Install(set), syscall.ENOSPC, "free space on the file system of "+at)
				shows(t, d, old)
				tidy(t, d, "ballast")
			}
			if err := os.Remove(at + "/ballast"); err != nil {
				t.Fatal(err)
			}
			if err := s.Install(set); err != nil {
				t.Fatal(err)
			}
			shows(t, d, set)
			tidy(t, d)
		})
	}
}

// fill leaves that many pages free.
func fill(t *testing.T, path string, free int) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page, size := make([]byte, os.Getpagesize()), 0
	for {
		n, err := f.Write(page)
		size += n
		if errors.Is(err, syscall.ENOSPC) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(int64(size - free*len(page))); err != nil {
		t.Fatal(err)
	}
}

// TestFullDiskAtMigration: what a person copied there stays as it was.
func TestFullDiskAtMigration(t *testing.T) {
	at, child := asChild(t)
	if !child {
		return
	}
	mount(t, "tmpfs", at, 0, "size=256k")
	d, old, set := dirIn(at), textsOf(t, newSet(t, "old")), newSet(t, "new")
	put(t, d, old)
	fill(t, at+"/ballast", 2) // a copy of the old set takes three pages
	for range 3 {
		s := open(t, d)
		wantError(t, s.Install(set), syscall.ENOSPC, "free space on the file system of "+at)
		if !equal(see(t, d), old) {
			t.Error("the three names show something else")
		}
		s.Close()
	}
	if err := os.Remove(at + "/ballast"); err != nil {
		t.Fatal(err)
	}
	install(t, d, set)
	shows(t, d, set)
	tidy(t, d)
}

func TestReadOnlyFileSystem(t *testing.T) {
	at, child := asChild(t)
	if !child {
		return
	}
	mount(t, "tmpfs", at, 0, "")
	d, old, set := dirIn(at), newSet(t, "old"), newSet(t, "new")
	s := open(t, d)
	if err := s.Install(old); err != nil {
		t.Fatal(err)
	}
	mountAgain := func(flags uintptr) {
		t.Helper()
		// The flag of the mount alone, as ProtectSystem= sets it: files that
		// are open for writing do not prevent it.
		if err := syscall.Mount("", at, "", syscall.MS_REMOUNT|syscall.MS_BIND|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	mountAgain(syscall.MS_RDONLY)
	says := []string{"make the file system of " + at + " writable", "ReadWritePaths=" + at}
	_, err := d.Open()
	wantError(t, err, syscall.EROFS, says...)
	shows(t, d, old)
	mountAgain(0)
	s = open(t, d)
	mount(t, "tmpfs", at, syscall.MS_RDONLY, "") // and where nothing is yet
	wantError(t, s.Install(set), syscall.EROFS, says...)
	if err := syscall.Unmount(at, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Install(set); err != nil {
		t.Fatal(err)
	}
	shows(t, d, set)
	tidy(t, d)
}

// become makes this process an unprivileged user's.
func become(t *testing.T, uid, gid int) {
	t.Helper()
	if err := errors.Join(syscall.Setgroups([]int{gid}), syscall.Setgid(gid), syscall.Setuid(uid)); err != nil {
		t.Fatal(err)
	}
}

const (
	agentUID, readerUID, groupGID = 64998, 64997, 64996
)

// TestDirectoryOfAnotherUser: the agent may read there, and not write.
func TestDirectoryOfAnotherUser(t *testing.T) {
	at, child := asChild(t)
	if !child {
		return
	}
	d, old := dirIn(at), newSet(t, "old")
	put(t, d, textsOf(t, old))
	for _, path := range []string{d.Key, d.Chain, d.Roots} {
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	become(t, agentUID, groupGID)
	_, err := d.Open()
	wantError(t, err, fs.ErrPermission, "make "+at+"/.citadel", fmt.Sprintf("uid %d", agentUID), "must own "+at+" ", "ReadWritePaths=")
	if got, err := d.Load(); err != nil || !equal(textsOf(t, got), textsOf(t, old)) {
		t.Errorf("Load: %v", err)
	}
}

// TestStoreOfAnotherUser: root made it, and now the agent runs as a user who
// owns the directory.
func TestStoreOfAnotherUser(t *testing.T) {
	at, child := asChild(t)
	if !child {
		return
	}
	d, old := dirIn(at), newSet(t, "old")
	install(t, d, old)
	if err := os.Chown(at, agentUID, -1); err != nil {
		t.Fatal(err)
	}
	become(t, agentUID, groupGID)
	_, err := d.Open()
	wantError(t, err, fs.ErrPermission, "must own "+at+"/.citadel/lock")
	_, err = d.Load()
	wantError(t, err, fs.ErrPermission, "key.pem", fmt.Sprintf("uid %d", agentUID), "must own "+at+"/.citadel/2/key.pem")
}

// TestGivingFilesAway is root's alone.
func TestGivingFilesAway(t *testing.T) {
	at, child := asChild(t)
	if !child {
		return
	}
	if err := os.Chown(at, agentUID, groupGID); err != nil {
		t.Fatal(err)
	}
	become(t, agentUID, groupGID)
	d := dirIn(at)
	d.UID = readerUID
	_, err := d.Open()
	wantError(t, err, fs.ErrPermission, "change the owner of "+at+"/.citadel", "only root", "leave owner and group")
	d.UID = -1
	d.GID = groupGID
	set := newSet(t, "a")
	install(t, d, set)
	shows(t, d, set)
}

// TestWhoMayRead: the agent is root, the files are for a user and a group.
// Each reader is a process of his own.
func TestWhoMayRead(t *testing.T) {
	at, child := asChild(t)
	if !child {
		return
	}
	if reader := os.Getenv("CERTDIR_READER"); reader != "" {
		readAs(t, dirIn(at), reader)
		return
	}
	d := dirIn(at)
	d.UID, d.GID = agentUID, groupGID
	for _, c := range []struct {
		key, cert fs.FileMode
		readers   []string
	}{
		{0o600, 0o600, []string{"owner all", "group nothing", "other nothing"}},
		{0o640, 0o640, []string{"owner all", "group all", "other nothing"}},
		{0o600, 0o644, []string{"owner all", "group certificates", "other certificates"}},
		{0o640, 0o644, []string{"owner all", "group all", "other certificates"}},
		{0o640, 0o600, []string{"owner all", "group key", "other nothing"}},
	} {
		d.KeyMode, d.CertMode = c.key, c.cert
		install(t, d, newSet(t, "a"))
		for _, reader := range c.readers {
			cmd := exec.Command(os.Args[0], "-test.run=^TestWhoMayRead$")
			cmd.Env = append(os.Environ(), "CERTDIR_READER="+reader, noWaitAtExit)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("modes %o and %o, %s: %v\n%s", c.key, c.cert, reader, err, out)
			}
		}
	}
}

func readAs(t *testing.T, d Dir, reader string) {
	who, what, _ := strings.Cut(reader, " ")
	switch who {
	case "owner":
		become(t, agentUID, readerUID)
	case "group":
		become(t, readerUID, groupGID)
	default:
		become(t, readerUID, readerUID)
	}
	may := map[string]bool{d.Key: what == "all" || what == "key", d.Chain: what == "all" || what == "certificates", d.Roots: what == "all" || what == "certificates"}
	for path, may := range may {
		if _, err := os.ReadFile(path); (err == nil) != may || !may && !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := d.Load(); (err == nil) != (what == "all") {
		t.Errorf("Load: %v", err)
	}
	// To be told of a swap, one watches the store, which takes reading it.
	if _, err := os.ReadDir(filepath.Dir(d.Key) + "/.citadel"); (err == nil) != (what != "nothing") {
		t.Errorf("list the store: %v", err)
	}
}

// TestOwnerOfTheDirectoryCannotLeadRootOut: the agent is root, and the
// directory's owner has put things there.
func TestOwnerOfTheDirectoryCannotLeadRootOut(t *testing.T) {
	at, child := asChild(t)
	if !child {
		return
	}
	home, outside := at+"/certs", at+"/outside"
	for _, dir := range []string{home, outside} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d, secret := dirIn(home), textsOf(t, newSet(t, "root's own"))
	d.UID, d.GID = agentUID, groupGID
	write(t, outside+"/secret.pem", string(secret[0]))
	if err := os.Link(outside+"/secret.pem", d.Key); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(home, agentUID, groupGID); err != nil {
		t.Fatal(err)
	}
	s := open(t, d)
	wantError(t, s.Install(newSet(t, "a")), nil, d.Key, "another user's file under a second name")
	if err := os.Remove(d.Key); err != nil {
		t.Fatal(err)
	}
	set := newSet(t, "b")
	if err := s.Install(set); err != nil {
		t.Fatal(err)
	}
	shows(t, d, set)
	// What has a second name within its owner's reach is his: a backup.
	if err := os.Link(home+"/.citadel/current/key.pem", home+"/.citadel/backup"); err != nil {
		t.Fatal(err)
	}
	shows(t, d, set)
	info, err := os.Stat(outside + "/secret.pem")
	if err != nil {
		t.Fatal(err)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 || info.Mode().Perm() != 0o600 {
		t.Errorf("the file outside belongs to %d, mode %o", owner, info.Mode().Perm())
	}
}
