package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// errLocked says that another process holds the lock of a directory.
var errLocked = errors.New("locked by another process")

// lockDir makes this process the only one that runs the cluster. The lock goes
// with the process, however that ends, and with its sweeper, who alone inherits
// it: a former cluster's is waited for.
func lockDir(ctx context.Context, l layout) (*os.File, error) {
	file, err := tryLock(l.lock())
	for errors.Is(err, errLocked) && gone(holder(l)) {
		if err := pause(ctx, pollInterval); err != nil {
			return nil, fmt.Errorf("wait until what a former node has left behind is removed: %w", err)
		}
		file, err = tryLock(l.lock())
	}
	if errors.Is(err, errLocked) {
		return nil, fmt.Errorf("%s is in use: a control plane runs there already (process %s)", l.dir, holder(l))
	}
	if err != nil {
		return nil, err
	}
	if err := file.Truncate(0); err == nil {
		_, err = file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("write %s: %w", l.lock(), err)
	}
	return file, nil
}

// awaitUnlocked returns when no process runs the cluster any more.
func awaitUnlocked(ctx context.Context, l layout) error {
	for {
		file, err := tryLock(l.lock())
		if err == nil {
			return file.Close()
		}
		if !errors.Is(err, errLocked) {
			return err
		}
		if err := pause(ctx, pollInterval); err != nil {
			return fmt.Errorf("wait for the end of process %s: %w", holder(l), err)
		}
	}
}

func tryLock(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return file, nil
	}
	file.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, errLocked
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}

// gone tells whether there is no such process.
func gone(pid string) bool {
	number, err := strconv.Atoi(pid)
	return err == nil && errors.Is(unix.Kill(number, 0), unix.ESRCH)
}

// holder is the process that wrote the lock last, for messages.
func holder(l layout) string {
	pid, err := os.ReadFile(l.lock())
	if err != nil || len(pid) == 0 {
		return "unknown"
	}
	return strings.TrimSpace(string(pid))
}

// pause waits, but not longer than the context.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
