package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"citadel/ca"
)

// TestAuditLinesAreWhole: however many sign at once.
func TestAuditLinesAreWhole(t *testing.T) {
	const writers, each = 16, 50
	path := filepath.Join(t.TempDir(), "audit.log")
	for name, open := range map[string]func(io.Writer) (*auditStream, error){
		"standard output": func(out io.Writer) (*auditStream, error) { return openAudit("-", "", out) },
		"file":            func(io.Writer) (*auditStream, error) { return openAudit(path, "", nil) },
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			stream, err := open(&out)
			if err != nil {
				t.Fatal(err)
			}
			var running sync.WaitGroup
			for w := range writers {
				running.Go(func() {
					for i := range each {
						r := ca.AuditRecord{Stage: ca.AuditSigning, Serial: fmt.Sprintf("%d-%d", w, i), Evidence: strings.Repeat("x", 100*w)}
						if err := stream.write(r); err != nil {
							t.Error(err)
						}
					}
				})
			}
			running.Wait()
			if err := stream.close(); err != nil {
				t.Error(err)
			}
			text := out.Bytes()
			if name == "file" {
				if text, err = os.ReadFile(path); err != nil {
					t.Fatal(err)
				}
			}
			seen := map[string]bool{}
			for line := range bytes.Lines(text) {
				var r ca.AuditRecord
				if err := json.Unmarshal(line, &r); err != nil {
					t.Fatalf("a line is no record: %q", line)
				}
				seen[r.Serial] = true
			}
			if len(seen) != writers*each || !bytes.HasSuffix(text, []byte("\n")) {
				t.Errorf("%d records of %d", len(seen), writers*each)
			}
		})
	}
}

// TestAuditFileThatWasCutOff: what is written after a crash does not become part
// of what was written before it.
func TestAuditFileThatWasCutOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	for before, want := range map[string]string{"": "", "{}\n": "{}\n", "{\"stage": "{\"stage\n"} {
		if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
		stream, err := openAudit(path, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(stream.failing(), stream.write(ca.AuditRecord{Stage: ca.AuditRefused}), stream.close()); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if rest, ok := strings.CutPrefix(string(text), want); err != nil || !ok || !strings.HasPrefix(rest, "{") || strings.Count(rest, "\n") != 1 {
			t.Errorf("%q became %q: %v", before, text, err)
		}
	}
}

// TestAuditFile is for the daemon's eyes alone, and is appended to.
func TestAuditFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	for range 2 {
		stream, err := openAudit(path, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(stream.write(ca.AuditRecord{Time: time.Now(), Stage: ca.AuditRefused}), stream.close()); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v (%v)", info.Mode(), err)
	}
	if text, _ := os.ReadFile(path); bytes.Count(text, []byte("\n")) != 2 {
		t.Errorf("holds %q", text)
	}
}

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

// TestAuditFailureIsTold, for nothing may be signed then.
func TestAuditFailureIsTold(t *testing.T) {
	stream, err := openAudit("-", "", full{})
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.write(ca.AuditRecord{}); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("error %v", err)
	}
	if _, err := openAudit(filepath.Join(t.TempDir(), "no", "folder"), "", nil); err == nil || !strings.Contains(err.Error(), "open the audit log") {
		t.Errorf("error %v", err)
	}
}

// disk has room for so many bytes.
type disk struct {
	text bytes.Buffer
	room int
}

func (d *disk) Write(p []byte) (int, error) {
	n, err := d.text.Write(p[:min(len(p), d.room)])
	if d.room -= n; err == nil && n < len(p) {
		err = errors.New("no space left on device")
	}
	return n, err
}

// TestAuditGoesOn after a record that was cut: the next is a line of its own,
// and that there is room again is told before it.
func TestAuditGoesOn(t *testing.T) {
	for _, asked := range []bool{false, true} {
		out := &disk{room: 20}
		stream := &auditStream{out: out}
		if stream.write(ca.AuditRecord{Serial: "cut"}) == nil || stream.failing() == nil {
			t.Error("a record that was cut is no failure")
		}
		out.room = 1 << 20
		if asked {
			if err := stream.failing(); err != nil {
				t.Errorf("with room again: %v", err)
			}
		}
		for _, serial := range []string{"a", "b"} {
			if err := stream.write(ca.AuditRecord{Serial: serial}); err != nil {
				t.Error(err)
			}
		}
		lines := strings.Split(out.text.String(), "\n")
		if len(lines) != 4 || len(lines[0]) != 20 || lines[3] != "" {
			t.Fatalf("asked %v: %d lines: %q", asked, len(lines), lines)
		}
		for i, want := range []string{"a", "b"} {
			var r ca.AuditRecord
			if err := json.Unmarshal([]byte(lines[i+1]), &r); err != nil || r.Serial != want {
				t.Errorf("asked %v: line %d is %q", asked, i+1, lines[i+1])
			}
		}
	}
}

// TestAuditPipe: one that nobody reads is an error, not a wait, when it is
// opened and when it has filled up.
func TestAuditPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openAudit(path, "", nil); err == nil || !strings.Contains(err.Error(), "--audit-log: open the audit log: open "+path+": ") {
		t.Errorf("without a reader: %v", err)
	}
	reader, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	stream, err := openAudit(path, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	file, ok := stream.out.(impatient)
	if !ok {
		t.Fatalf("writes to a %T", stream.out)
	}
	stream.out = impatient{file.File, 20 * time.Millisecond}
	record := ca.AuditRecord{Evidence: strings.Repeat("x", 8<<10)}
	for range 1000 {
		if err = stream.write(record); err != nil {
			break
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) || stream.failing() == nil {
		t.Errorf("with a reader that does not read: %v", err)
	}
	if err := stream.close(); err != nil {
		t.Error(err)
	}
}

// TestBlockedStandardOutput: signing waits for who reads it, and that is told
// without waiting too.
func TestBlockedStandardOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, in := io.Pipe()
		stream, err := openAudit("-", "", in)
		if err != nil {
			t.Fatal(err)
		}
		written := make(chan error, 1)
		go func() { written <- stream.write(ca.AuditRecord{Serial: "a"}) }()
		synctest.Wait()
		if err := stream.failing(); err != nil {
			t.Errorf("at once: %v", err)
		}
		time.Sleep(auditPatience + time.Second)
		if err := stream.failing(); !errors.Is(err, errStuck) {
			t.Errorf("after %s: %v", auditPatience, err)
		}
		go func() { _, _ = io.Copy(io.Discard, out) }() // it ends with the pipe
		if err := <-written; err != nil {
			t.Error(err)
		}
		if err := stream.failing(); err != nil {
			t.Errorf("once it is read: %v", err)
		}
		_ = in.Close()
	})
}

// TestAuditLogLeavesNoStateFolder by a link; one that a person names himself may
// be a link, as /dev/stderr is.
func TestAuditLogLeavesNoStateFolder(t *testing.T) {
	state, other := t.TempDir(), t.TempDir()
	log, target := filepath.Join(state, "audit.log"), filepath.Join(other, "target")
	if err := os.Symlink(target, log); err != nil {
		t.Fatal(err)
	}
	if _, err := openAudit(log, state+"/", io.Discard); err == nil || !strings.Contains(err.Error(), "audit.log is a symbolic link") {
		t.Errorf("through a link: %v", err)
	}
	if _, err := os.Stat(target); err == nil {
		t.Error("the link's target was made")
	}
	for _, stateDir := range []string{"", other} {
		stream, err := openAudit(log, stateDir, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.close(); err != nil {
			t.Error(err)
		}
	}
}
