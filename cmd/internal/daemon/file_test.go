package daemon

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"citadel/ca/regular"
)

// fromFile reads arguments, then the environment, then a file of a text.
func fromFile(t *testing.T, text string, env map[string]string, args ...string) (p *program, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "flags.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p = parse(t, env, args...)
	p.flags.ReadFile(p.set, path)
	return p, path
}

func TestFile(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		env  map[string]string
		args []string
		ttl  time.Duration
		port int
		dns  bool
		str  string
	}{
		"nothing":                        {"", nil, nil, time.Hour, 1, true, "x"},
		"a remark":                       {"# nothing\n---\n", nil, nil, time.Hour, 1, true, "x"},
		"values as they are written":     {"cert-ttl: 2h\nport: 0640\nappend-dns-names: false\nlog_names: 1e6\n", nil, nil, 2 * time.Hour, 416, false, "1e6"}, // Go's integers read 0640 so too
		"quoted":                         {"cert-ttl: '2h'\nport: \"8060\"\nlog_names: 'no'\n", nil, nil, 2 * time.Hour, 8060, true, "no"},
		"a list":                         {"log_names: [a, 1, true]\n", nil, nil, time.Hour, 1, true, "a,1,true"},
		"an empty list":                  {"log_names: []\n", nil, nil, time.Hour, 1, true, ""},
		"nothing for a text":             {"log_names:\n", nil, nil, time.Hour, 1, true, ""},
		"as JSON":                        {`{"cert-ttl": "2h", "port": 8060}`, nil, nil, 2 * time.Hour, 8060, true, "x"},
		"an old name":                    {"ttl: 2h\n", nil, nil, 2 * time.Hour, 1, true, "x"},
		"a flag counts more":             {"cert-ttl: 2h\nport: 2\n", nil, []string{"--cert-ttl=3h"}, 3 * time.Hour, 2, true, "x"},
		"so does one of the old name":    {"cert-ttl: 2h\n", nil, []string{"--ttl=3h"}, 3 * time.Hour, 1, true, "x"},
		"so does one for an old name":    {"ttl: 2h\n", nil, []string{"--cert-ttl=3h"}, 3 * time.Hour, 1, true, "x"},
		"so does a variable":             {"cert-ttl: 2h\nlog_names: f\n", map[string]string{"TEST_CERT_TTL": "3h", "TEST_LOG_NAMES": ""}, nil, 3 * time.Hour, 1, true, ""},
		"a wrong value of no importance": {"cert-ttl: soon\n", nil, []string{"--cert-ttl=3h"}, 3 * time.Hour, 1, true, "x"},
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := fromFile(t, c.text, c.env, c.args...)
			if len(p.flags.Problems()) > 0 || p.ttl != c.ttl || p.port != c.port || p.dns != c.dns || p.names != c.str {
				t.Errorf("ttl %s, port %d, dns %v, names %q, problems %v", p.ttl, p.port, p.dns, p.names, p.flags.Problems())
			}
		})
	}
}

// TestBadFile: one problem each, with the line, and without values that may be
// secret.
func TestBadFile(t *testing.T) {
	for text, want := range map[string]string{
		"a: s3cr3t":                   "configuration file PATH, line 1: there is no flag --a",
		"port: 1\nport: 2":            "configuration file PATH: line 2: port stands in line 1 already",
		"port: 2\n\ncert-ttl: soon":   `--cert-ttl (set by PATH, line 3): "soon": time: invalid duration "soon"`,
		"ttl: soon":                   `--ttl (set by PATH, line 1): "soon": time: invalid duration "soon"`,
		"port: {s3cr3t: 1}":           "configuration file PATH, line 1: the value of port is neither a text",
		"log_names: [[s3cr3t]]":       "configuration file PATH, line 1: the value of log_names is neither a text",
		"log_names: [{a: s3cr3t}]":    "configuration file PATH, line 1: the value of log_names is neither a text",
		"a: &a s3cr3t\nlog_names: *a": "configuration file PATH, line 1: there is no flag --a\nconfiguration file PATH, line 2: the value of log_names is neither",
		"<<: {port: 3}":               "configuration file PATH, line 1: there is no flag --<<",
		"{port: 1}: 2":                "configuration file PATH, line 1: there is no flag --",
		"[port, cert-ttl]":            "configuration file PATH: holds no flags: write lines of NAME: VALUE",
		"port":                        "configuration file PATH: holds no flags",
		"port=1":                      "configuration file PATH: holds no flags",
		"port: 1\n---\nport: 2":       "configuration file PATH: holds more than one document",
		"port: [":                     "configuration file PATH: yaml: ",
		"\x00":                        "configuration file PATH: yaml: ",
		"\xff\xfe\xff":                "configuration file PATH: yaml: ",
		"log_names: " + strings.Repeat("x", regular.Longest): "read PATH: is larger than 1048576 bytes",
	} {
		p, path := fromFile(t, text, nil)
		var got []string
		for _, problem := range p.flags.Problems() {
			got = append(got, strings.ReplaceAll(problem.Error(), path, "PATH"))
		}
		told := strings.Join(got, "\n")
		if !strings.Contains(told, want) || len(got) != strings.Count(want, "\n")+1 || strings.Contains(told, "s3cr3t") {
			t.Errorf("%.40q: %q, want %q", text, told, want)
		}
	}
}

// TestStructured: what flags cannot say goes to the command, once, with its line.
func TestStructured(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flags.yaml")
	if err := os.WriteFile(path, []byte("port: 2\nmore:\n- {a: 1}\nless:\nmore: 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, lines := parse(t, nil), map[int]string{}
	p.flags.Structured("more", func(file string, value *yaml.Node) { lines[value.Line] = file })
	p.flags.ReadFile(p.set, path)
	if len(lines) != 1 || lines[3] != path || p.port != 2 {
		t.Errorf("read in lines %v, port %d", lines, p.port)
	}
	var told []string
	for _, problem := range p.flags.Problems() {
		told = append(told, problem.Error())
	}
	want := []string{"configuration file " + path + ", line 4: there is no flag --less", "configuration file " + path + ": line 5: more stands in line 2 already"}
	if !slices.Equal(told, want) {
		t.Errorf("%q, want %q", told, want)
	}
}

// TestWhatIsNoFile is not read, and nothing is waited for.
func TestWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		pipe: "is no regular file", "/dev/zero": "is no regular file", dir: "is a directory", filepath.Join(dir, "missing"): "no such file or directory",
	} {
		p := parse(t, nil)
		p.flags.ReadFile(p.set, path)
		problems := p.flags.Problems()
		if len(problems) != 1 || !strings.HasPrefix(problems[0].Error(), "read the configuration file: ") || !strings.Contains(problems[0].Error(), want) || !strings.Contains(problems[0].Error(), path) {
			t.Errorf("%s: %v", path, problems)
		}
	}
}

func FuzzFile(f *testing.F) {
	f.Add("cert-ttl: 2h\nport: [1, 2]\n")
	f.Add("a: &a [*a]\n---\n? {x: y}\n: z")
	f.Fuzz(func(t *testing.T, text string) {
		entries, err := entriesOf([]byte(text))
		if err == nil && len(entries)%2 != 0 {
			t.Errorf("%d keys and values", len(entries))
		}
		p := newProgram()
		for i := 0; err == nil && i+1 < len(entries); i += 2 {
			p.flags.setFromFile(p.set, "file", entries[i].Value, entries[i+1])
		}
	})
}
