package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"

	"citadel/ca"
)

// auditStream writes audit records as JSON lines.
type auditStream struct {
	mu    sync.Mutex
	out   io.Writer // guarded by mu
	close func() error
}

// openAudit opens the stream that --audit-log names.
func openAudit(path string, stdout io.Writer) (*auditStream, error) {
	if path == "-" {
		return &auditStream{out: stdout, close: func() error { return nil }}, nil
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
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
	_, err = a.out.Write(append(line, '\n'))
	return err
}
