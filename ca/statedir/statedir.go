// Package statedir keeps in one directory what a Citadel without Kubernetes has
// to keep: its root, its join tokens and its bans. One citadel serves from a
// directory; tools change tokens and bans beside it, and people what decides
// about mTLS, in a folder of its own, which is only read here.
//
// It refuses directories that others can read, to write over a root, to make a
// second one, and to leave anything half-written.
//
// Two locks, each a file in the directory:
//
//	lock       held by the citadel that serves, as long as it does
//	edit.lock  held by whoever changes tokens or bans, for that one change
//
// What is replaced is replaced as one, so reading takes neither.
package statedir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The names in the directory.
const (
	certName   = "ca-cert.pem"
	keyName    = "ca-key.pem"
	bansName   = "bans.json"
	domainName = "trust-domain"
	tokensName = "tokens"
	lockName   = "lock"
	editName   = "edit.lock"
	// AuditLog is for whoever writes audit records.
	AuditLog = "audit.log"
)

const (
	// editLimit bounds the wait for whoever changes something: a change takes
	// milliseconds, unless its process was stopped in the middle of it.
	editLimit = 5 * time.Second
	editWait  = 2 * time.Millisecond
)

// Dir is an open directory. It may be used by many goroutines.
type Dir struct {
	folder
	tokens  folder
	lock    *os.File      // of the citadel that serves; nil in a tool
	editing chan struct{} // full while this process changes something
}

// Open makes the directory where there is none, and holds it until Close: no
// other citadel can then open it.
func Open(path string) (*Dir, error) { return openBefore(path, nil) }

// Beside opens the directory of a citadel, which may be running, for a tool that
// lists or changes tokens and bans. Root may: what it makes belongs to the
// directory's owner.
func Beside(path string) (*Dir, error) {
	d, err := besideBefore(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: citadel --state-dir makes it when it first starts", err)
	}
	return d, err
}

func openBefore(path string, before hook) (*Dir, error) {
	if err := makeFolder(path, before); err != nil {
		return nil, err
	}
	d, err := besideBefore(path, before)
	if err != nil {
		return nil, err
	}
	if err := d.serve(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// makeFolder makes the directory where there is none, and not those above it.
func makeFolder(path string, before hook) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	parent, err := openFolder(filepath.Dir(path), before)
	if err != nil {
		return err
	}
	defer parent.close()
	if err := parent.mkdir(filepath.Base(path)); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return parent.sync()
}

func besideBefore(path string, before hook) (*Dir, error) {
	main, err := openFolder(path, before)
	if err != nil {
		return nil, err
	}
	d := &Dir{folder: main, editing: make(chan struct{}, 1)}
	if err = d.checkAccess(); err == nil {
		d.tokens, err = d.subfolder(tokensName)
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// checkAccess insists that nobody but the owner gets in, and that we are the
// owner, or root.
func (d *Dir) checkAccess() error {
	info, err := d.lstat(".")
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t)
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s is open to other users (mode %#o), and a CA's key is in there: chmod 700 %s", d.path, mode, d.path)
	}
	if us := os.Geteuid(); us != 0 && uint32(us) != owner.Uid {
		return fmt.Errorf("%s belongs to uid %d, and this runs as uid %d: run it as that user, or as root", d.path, owner.Uid, us)
	}
	d.uid, d.gid = int(owner.Uid), int(owner.Gid)
	return nil
}

// serve takes the lock of the one that serves. It must be the owner: what it
// writes as another, the next one could not read.
func (d *Dir) serve() error {
	if us := os.Geteuid(); us != d.uid {
		return fmt.Errorf("%s belongs to uid %d, and this runs as uid %d: run it as that user, or give the directory to this one (chown -R)", d.path, d.uid, us)
	}
	lock, err := d.openLock(lockName)
	if err != nil {
		return err
	}
	err = d.try("lock", lockName, func() error { return flock(lock) })
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("%s is in use by another citadel%s: stop that one, or give each a directory of its own", d.path, holder(lock))
	}
	if err != nil {
		lock.Close()
		return err
	}
	d.lock = lock
	// Who holds it is said for people: the lock does not depend on it.
	if lock.Truncate(0) == nil {
		_, _ = lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return nil
}

// holder is what a lock file says of who holds it.
func holder(lock *os.File) string {
	text := make([]byte, 32)
	n, _ := lock.ReadAt(text, 0)
	if pid, err := strconv.Atoi(strings.TrimSpace(string(text[:n]))); err == nil {
		return fmt.Sprintf(" (process %d)", pid)
	}
	return ""
}

func flock(f *os.File) error {
	for {
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != syscall.EINTR {
			return err
		}
	}
}

// Close gives the directory up.
func (d *Dir) Close() error {
	d.tokens.close()
	d.close()
	if d.lock == nil {
		return nil
	}
	return d.lock.Close()
}

// Path is of a file in the directory.
func (d *Dir) Path(name string) string { return d.name(name) }

// edit does one change, alone among all goroutines and processes.
func (d *Dir) edit(ctx context.Context, change func() error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, editLimit,
		fmt.Errorf("%s has been held by somebody else for %s: look for a citadelctl that was stopped, and try again", d.name(editName), editLimit))
	defer cancel()
	select {
	case d.editing <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("change %s: %w", d.path, context.Cause(ctx))
	}
	defer func() { <-d.editing }()
	lock, err := d.lockEdits(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	return change()
}

// lockEdits returns the locked file. One that was removed meanwhile is not the
// one that others lock.
func (d *Dir) lockEdits(ctx context.Context) (*os.File, error) {
	for {
		lock, err := d.openLock(editName)
		if err != nil {
			return nil, err
		}
		err = d.try("lock", editName, func() error { return flock(lock) })
		if err == nil && d.isStill(editName, lock) {
			return lock, nil
		}
		lock.Close()
		if err != nil && !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, err
		}
		select {
		case <-time.After(editWait):
		case <-ctx.Done():
			return nil, fmt.Errorf("change %s: %w", d.path, context.Cause(ctx))
		}
	}
}
