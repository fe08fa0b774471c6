package main

import (
	"io/fs"
	"log/slog"
	"strings"
	"testing"
)

// TestKeyThatCannotBeNarrowed is told with what to look at, and one that was
// narrowed with what it was.
func TestKeyThatCannotBeNarrowed(t *testing.T) {
	for name, c := range map[string]struct {
		had  fs.FileMode
		err  error
		want string // of the log; empty: nothing is said
	}{
		"it was right": {},
		"narrowed":     {had: 0o644, want: `level=INFO msg="the key has the mode of --key-mode now" was=0644 key=/etc/certs/key.pem`},
		"it cannot be": {had: 0o644, err: fs.ErrPermission,
			want: `level=WARN msg="more people can read the key than --key-mode lets, until it is renewed" err="permission denied" mode=0644 key=/etc/certs/key.pem`},
	} {
		t.Run(name, func(t *testing.T) {
			log := &output{}
			p := &process{cfg: &config{options: &options{key: "/etc/certs/key.pem"}}, log: slog.New(slog.NewTextHandler(log, nil))}
			p.narrow(func() (fs.FileMode, error) { return c.had, c.err })
			if text := log.String(); !strings.Contains(text, c.want) || c.want == "" && text != "" {
				t.Errorf("%q, want %q", text, c.want)
			}
		})
	}
}
