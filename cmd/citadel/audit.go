package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"citadel/ca"
)

// auditStream writes audit records as JSON lines.
type auditStream struct {
	mu    sync.Mutex
	out   io.Writer    // guarded by mu
	last  error        // guarded by mu: of the last write
	began atomic.Int64 // Unix nanoseconds of the write under way; 0: none is
	close func() error
}

// openAudit opens the stream that --audit-log names. A log in the state folder,
// if there is one, leads nowhere else, as nothing there does.
func openAudit(path, stateDir string, stdout io.Writer) (*auditStream, error) {
	if path == "-" {
		return &auditStream{out: stdout, close: func() error { return nil }}, nil
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_APPEND | syscall.O_NONBLOCK // a pipe that nobody reads is an error, not a wait
	inState := stateDir != "" && filepath.Dir(path) == filepath.Clean(stateDir)
	if inState {
		flags |= syscall.O_NOFOLLOW
	}
	file, err := os.OpenFile(path, flags, 0o600)
	if inState && errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("--audit-log: %s is a symbolic link, and nothing in the state folder leads out of it: move it away, and name the log itself by --audit-log", path)
	}
	if err != nil {
		return nil, fmt.Errorf("--audit-log: open the audit log: %w", err)
	}
	return &auditStream{out: impatient{file, auditPatience}, last: cutOff(path), close: file.Close}, nil
}

// cutOff is an error where a crash, or a disk that was full, left half a record
// at a file's end: the next one must begin on a line of its own.
func cutOff(path string) error {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil // it may be for writing alone
	}
	defer file.Close()
	end := make([]byte, 1)
	if _, err := file.ReadAt(end, info.Size()-1); err != nil || end[0] == '\n' {
		return nil
	}
	return errors.New("the last record is cut off")
}

// auditPatience is how long a record may wait for a reader of the pipe that
// --audit-log names: signing waits for it, and /readyz too.
const auditPatience = 3 * time.Second

// impatient is a file whose writes fail where they would wait for long.
type impatient struct {
	*os.File
	wait time.Duration
}

// Write is of io.Writer.
func (i impatient) Write(p []byte) (int, error) {
	_ = i.SetWriteDeadline(time.Now().Add(i.wait)) // only pipes have one, and only they need it
	return i.File.Write(p)
}

func (a *auditStream) write(r ca.AuditRecord) error {
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode an audit record: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last != nil {
		line = append([]byte{'\n'}, line...) // what was cut off before it is not made part of it
	}
	a.put(append(line, '\n'))
	return a.last
}

// put writes with the lock held.
func (a *auditStream) put(line []byte) {
	a.began.Store(time.Now().UnixNano())
	defer a.began.Store(0)
	_, a.last = a.out.Write(line)
}

// errStuck says that nobody reads what is written.
var errStuck = errors.New("a record waits to be written: whoever reads standard output, or the log that --audit-log names, does not")

// stuck is errStuck when the write under way, which holds the lock, has waited for
// too long: standard output has no deadline.
func (a *auditStream) stuck() error {
	if began := a.began.Load(); began != 0 && time.Since(time.Unix(0, began)) > auditPatience {
		return errStuck
	}
	return nil
}

// failing is why records cannot be written: without them nothing is signed.
// When the last one failed it tries again, by ending that one's line. It never
// waits for one that is being written.
func (a *auditStream) failing() error {
	if !a.mu.TryLock() {
		return a.stuck()
	}
	defer a.mu.Unlock()
	if a.last != nil {
		a.put([]byte{'\n'})
	}
	return a.last
}
