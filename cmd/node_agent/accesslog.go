package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"

	"citadel/nodeagent/enforce"
)

// accessLog has a line for each connection. The zero value is of none.
type accessLog struct {
	mu   sync.RWMutex
	to   *slog.Logger // guarded by mu; nil where none is asked for
	file *os.File     // guarded by mu; nil where to is the agent's own log
}

// tell writes the line of a connection.
func (a *accessLog) tell(e *enforce.Event) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.to != nil {
		a.to.Info("connection", accessAttrs(e)...)
	}
}

// open has lines go to a file, which others may have moved away, to the agent's
// own log, or nowhere. After an error they go where they went.
func (a *accessLog) open(path, format string, log *slog.Logger) error {
	to, file := (*slog.Logger)(nil), (*os.File)(nil)
	switch path {
	case "":
	case accessToLog:
		to = log
	default:
		var err error
		if file, err = openAccessFile(path); err != nil {
			return fmt.Errorf("enforce.accessLog: %w", err)
		}
		told := &toldWriter{to: file, tell: func(err error) { log.Warn("connections are missing from the access log", "err", err) }}
		if to = slog.New(slog.NewTextHandler(told, nil)); format == "json" {
			to = slog.New(slog.NewJSONHandler(told, nil))
		}
	}
	if err := a.swap(to, file); err != nil {
		log.Warn("close the access log before", "err", err)
	}
	return nil
}

// close has lines go nowhere.
func (a *accessLog) close() error { return a.swap(nil, nil) }

func (a *accessLog) swap(to *slog.Logger, file *os.File) error {
	a.mu.Lock()
	before := a.file
	a.to, a.file = to, file
	a.mu.Unlock()
	if before == nil {
		return nil
	}
	return before.Close()
}

// openAccessFile does not wait for the reader of a pipe, which is refused.
func openAccessFile(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, 0o640)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file: use - for the agent's own log", path)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}
