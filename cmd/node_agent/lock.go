package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
)

const lockName = "lock"

// hold takes the folder's lock, so that no other agent writes there too, until
// the file is closed. A folder that cannot be made or written to stops no agent
// before it has something to keep: the file is nil then.
func (s state) hold(log *slog.Logger) (*os.File, error) {
	path := filepath.Join(s.folder, lockName)
	err := os.MkdirAll(s.folder, 0o700)
	var lock *os.File
	if err == nil {
		lock, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	}
	if err != nil {
		log.Warn("the state folder has no lock: another agent could use it too", "folder", s.folder, "err", err)
		return nil, nil
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		err = errors.Join(err, lock.Close())
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s is in use by another node_agent: stop that one, or give each a folder of its own by --state-dir", s.folder)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return lock, nil
}
