package certdir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// between has do happen just before the first operation of that name on path.
func between(operation, path string, do func()) hook {
	done := false
	return func(o, p string) error {
		if o == operation && p == path && !done {
			done = true
			do()
		}
		return nil
	}
}

// TestFileReplacedWhileItIsRead by a person who copies a set there once more.
func TestFileReplacedWhileItIsRead(t *testing.T) {
	d, set := dirIn(t.TempDir()), newSet(t, "a")
	put(t, d, textsOf(t, set))
	d.before = between("read", d.Key, func() {
		if err := os.Rename(d.Key, d.Key+".old"); err != nil { // or the new file may get its inode
			t.Error(err)
		}
		put(t, d, textsOf(t, set))
	})
	got, err := d.Load()
	if err != nil || !equal(textsOf(t, got), textsOf(t, set)) {
		t.Errorf("Load: %v", err)
	}
}

// TestPipePutInAFilesPlace while it is being opened: nobody waits for what
// comes through it.
func TestPipePutInAFilesPlace(t *testing.T) {
	d := dirIn(t.TempDir())
	put(t, d, textsOf(t, newSet(t, "a")))
	d.before = between("read", d.Key, func() {
		if err := errors.Join(os.Remove(d.Key), syscall.Mkfifo(d.Key, 0o600)); err != nil {
			t.Error(err)
		}
	})
	_, err := d.Load()
	wantError(t, err, nil, "key.pem is neither a file nor a link of ours")
}

// TestFilePutWhereTheKeyIsMade, by whoever owns the store: the key goes into
// no file, and through no link, that was there before.
func TestFilePutWhereTheKeyIsMade(t *testing.T) {
	for name, plant := range map[string]func(path, outside string) error{
		"a file":        func(path, _ string) error { return os.WriteFile(path, []byte("theirs"), 0o666) },
		"a link":        func(path, outside string) error { return os.Symlink(outside, path) },
		"a link within": func(path, _ string) error { return os.Symlink("../../key-of-mine.pem", path) },
	} {
		t.Run(name, func(t *testing.T) {
			d, old, outside := dirIn(t.TempDir()), newSet(t, "a"), t.TempDir()+"/file"
			install(t, d, old)
			key := filepath.Join(filepath.Dir(d.Key), ".citadel", "3", "key.pem")
			faulty := d
			faulty.before = between("make", key, func() {
				if err := plant(key, outside); err != nil {
					t.Error(err)
				}
			})
			s := open(t, faulty)
			wantError(t, s.Install(newSet(t, "b")), fs.ErrExist, "make "+key)
			shows(t, d, old)
			for _, path := range []string{outside, filepath.Dir(d.Key) + "/key-of-mine.pem"} {
				if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s was made: %v", path, err)
				}
			}
		})
	}
}

// TestNothingIsRemovedBeforeTheSwapIsOnTheDisk, however often that fails: after
// a power failure "current" may lead to any generation since.
func TestNothingIsRemovedBeforeTheSwapIsOnTheDisk(t *testing.T) {
	d := dirIn(t.TempDir())
	install(t, d, newSet(t, "a"))
	install(t, d, newSet(t, "b")) // generations 2 and 3
	store := filepath.Join(filepath.Dir(d.Key), ".citadel")
	swapped := false
	d.before = func(operation, path string) error {
		if operation == "replace" {
			swapped = true
		}
		if operation == "sync" && path == store && swapped {
			return syscall.EIO
		}
		return nil
	}
	s := open(t, d)
	for range 3 {
		wantError(t, s.Install(newSet(t, "c")), syscall.EIO, "sync "+store)
		for _, number := range []string{"2", "3"} {
			if _, err := os.Stat(filepath.Join(store, number, "key.pem")); err != nil {
				t.Error(err)
			}
		}
	}
	swapped, d.before = false, nil
	s.Close()
	last := newSet(t, "d")
	install(t, d, last)
	shows(t, d, last)
	tidy(t, d)
}

// TestLinksThatACrashLeftAreSwept, where nobody needs them any more.
func TestLinksThatACrashLeftAreSwept(t *testing.T) {
	d := dirIn(t.TempDir())
	install(t, d, newSet(t, "a"))
	for _, path := range []string{d.Key, d.Roots, filepath.Join(filepath.Dir(d.Key), ".citadel", "current")} {
		symlink(t, "anything", filepath.Join(filepath.Dir(path), temporary(filepath.Base(path))))
	}
	install(t, d, newSet(t, "b"))
	tidy(t, d)
}

// TestErrorsHoldNothingOfTheKey, wherever an Install or a Load fails.
func TestErrorsHoldNothingOfTheKey(t *testing.T) {
	d, set := dirIn(t.TempDir()), newSet(t, "a")
	secret := strings.Split(string(textsOf(t, set)[0]), "\n")[1]
	was := textsOf(t, set)
	for _, damaged := range [][]byte{was[0][:len(was[0])/2], append(was[0], was[0]...), []byte(secret), append([]byte(secret), was[0]...)} {
		put(t, d, texts{damaged, was[1], was[2]})
		_, err := d.Load()
		if err != nil && strings.Contains(err.Error(), secret[:20]) {
			t.Errorf("Load: %v", err)
		}
		s := open(t, d)
		if err := s.Install(set); err != nil && strings.Contains(err.Error(), secret[:20]) {
			t.Errorf("Install: %v", err)
		}
		s.Close()
	}
}
