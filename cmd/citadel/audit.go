package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"citadel/ca"
)

// auditStream writes audit records as JSON lines.
type auditStream struct {
	mu    sync.Mutex
	out   io.Writer // guarded by mu
	last  error     // guarded by mu: of the last record
	close func() error
}

// openAudit opens the stream that --audit-log names.
func openAudit(path string, stdout io.Writer) (*auditStream, error) {
	if path == "-" {
		return &auditStream{out: stdout, close: func() error { return nil }}, nil
	}
	// A pipe that nobody reads is an error, not a wait.
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	return &auditStream{out: file, close: file.Close}, nil
}

func (a *auditStream) write(r ca.AuditRecord) error {
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode an audit record: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	_, a.last = a.out.Write(append(line, '\n'))
	return a.last
}

// failing is why the last record could not be written: without records nothing
// is signed.
func (a *auditStream) failing() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last
}
