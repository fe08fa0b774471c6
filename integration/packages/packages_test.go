// Package packages holds systemd/ and what is made of it, by make install and by
// make packages, to what administrators are promised: which files, whose, in
// which modes, how much a unit may do, and that nothing is started.
//
// It needs no root, and refuses to install anything on this machine.
package packages

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// built is where make has put programs and packages.
var built string

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "packages:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if built, err = os.MkdirTemp("", "citadel-packages-"); err != nil {
		return 0, err
	}
	defer os.RemoveAll(built)
	build := exec.Command("make", "-C", "../..", "packages", "BIN="+built, "ARCH="+runtime.GOARCH, "PACKAGE_VERSION="+version)
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%v: %w\n%s", build.Args, err, out)
	}
	return m.Run(), nil
}

const version = "1.2.3+4.gabcdef"

// made is the one package of a name and kind.
func made(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(built, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %q, %v", pattern, found, err)
	}
	return found[0]
}

// output is what a command prints. It fails the test if the command fails.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LANG=C", "SYSTEMD_PAGER=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// agentFiles and citadelFiles are what belongs to each package.
var (
	agentFiles = []string{
		"-rw-r--r-- /etc/default/istio-auth-node-agent",
		"-rw-r--r-- /etc/default/istio-auth-node-agent-redirect",
		"-rw-r--r-- /usr/lib/systemd/system/istio-auth-node-agent-redirect.service",
		"-rw-r--r-- /usr/lib/systemd/system/istio-auth-node-agent.service",
		"-rw-r--r-- /usr/lib/sysusers.d/istio-auth-node-agent.conf",
		"-rw-r--r-- /usr/lib/tmpfiles.d/istio-auth-node-agent.conf",
		"-rwxr-xr-x /usr/local/bin/node_agent",
		"-rw-r--r-- /usr/share/doc/istio-auth-node-agent/copyright",
	}
	citadelFiles = []string{
		"-rw-r--r-- /etc/default/citadel",
		"-rw-r--r-- /usr/lib/systemd/system/citadel.service",
		"-rw-r--r-- /usr/lib/sysusers.d/citadel.conf",
		"-rwxr-xr-x /usr/local/bin/citadel",
		"-rwxr-xr-x /usr/local/bin/citadelctl",
		"-rw-r--r-- /usr/share/doc/citadel/copyright",
	}
)

func TestDebianPackages(t *testing.T) {
	for name, want := range map[string][]string{"istio-auth-node-agent": agentFiles, "citadel": citadelFiles} {
		deb := made(t, name+"_*.deb")
		var files []string
		for line := range strings.Lines(output(t, "dpkg-deb", "--contents", deb)) {
			f := strings.Fields(line) // mode, owner, size, date, time, path
			if f[1] != "root/root" {
				t.Errorf("%s: %s", name, line)
			}
			if !strings.HasSuffix(f[5], "/") {
				files = append(files, f[0]+" "+strings.TrimPrefix(f[5], "."))
			}
		}
		if !slices.Equal(files, want) {
			t.Errorf("%s has %q", name, files)
		}
		if got := output(t, "dpkg-deb", "--show", "--showformat", "${Package} ${Version} ${Architecture} ${Depends}", deb); got != name+" "+version+" "+runtime.GOARCH+" systemd (>= 252)" {
			t.Error(got)
		}
		if got := output(t, "dpkg-deb", "--info", deb, "conffiles"); got != settings(want) {
			t.Errorf("%s: settings that survive an upgrade: %q", name, got)
		}
		restartsWithoutWaiting(t, name, output(t, "dpkg-deb", "--info", deb, "postinst"))
		for script, text := range map[string]string{"postinst": "systemd-sysusers " + name + ".conf", "prerm": "systemctl disable --now " + name + ".service", "postrm": "daemon-reload"} {
			holdsScript(t, name, output(t, "dpkg-deb", "--info", deb, script), text)
		}
	}
}

// settings are the files of a package that administrators write in.
func settings(files []string) string {
	var found []string
	for _, file := range files {
		if path := strings.Fields(file)[1]; strings.HasPrefix(path, "/etc/") {
			found = append(found, path)
		}
	}
	return strings.Join(found, "\n")
}

// holdsScript insists that a script of a package does something, and enables
// nothing.
func holdsScript(t *testing.T, name, script, text string) {
	t.Helper()
	for line := range strings.Lines(script) {
		if word := strings.TrimSpace(line); strings.HasPrefix(word, "systemctl enable") || strings.HasPrefix(word, "systemctl start") || strings.Contains(word, "@") {
			t.Errorf("%s: %s", name, line)
		}
	}
	if !strings.Contains(script, text) {
		t.Errorf("%s: no %q in\n%s", name, text, script)
	}
}

// restartsWithoutWaiting insists that an upgrade has systemd restart what runs,
// and neither waits for it nor fails by it: a host without certificate may take
// minutes to start, and a package must not stay half-configured for that.
func restartsWithoutWaiting(t *testing.T, name, script string) {
	t.Helper()
	restart := "systemctl --no-block try-restart " + name + ".service || "
	for line := range strings.Lines(script) {
		if line = strings.TrimSpace(line); strings.Contains(line, "try-restart") && !strings.HasPrefix(line, restart) {
			t.Errorf("%s: %s", name, line)
		}
	}
	holdsScript(t, name, script, restart)
}

func TestRPMPackages(t *testing.T) {
	for name, want := range map[string][]string{"istio-auth-node-agent": agentFiles, "citadel": citadelFiles} {
		rpm := made(t, name+"-[0-9]*.rpm")
		query := func(args ...string) string {
			return output(t, "rpm", append([]string{"--query", "--package", "--nosignature", rpm}, args...)...)
		}
		if files := strings.Split(query("--queryformat", "[%{FILEMODES:perms} %{FILENAMES}\n]"), "\n"); !slices.Equal(files, want) {
			t.Errorf("%s has %q", name, files)
		}
		if got := query("--queryformat", "%{NAME} %{VERSION} %{LICENSE}"); got != name+" "+version+" Apache-2.0" {
			t.Error(got)
		}
		if got := query("--configfiles"); got != settings(want) {
			t.Errorf("%s: settings that survive an upgrade: %q", name, got)
		}
		if got := query("--requires"); got != "systemd >= 252" {
			t.Errorf("%s requires %q", name, got)
		}
		scripts := query("--scripts")
		restartsWithoutWaiting(t, name, scripts)
		for _, text := range []string{"systemd-sysusers " + name + ".conf", "systemctl disable --now " + name + ".service"} {
			holdsScript(t, name, scripts, text)
		}
	}
}

// builtFrom is in what a program of a repository says of its version, also
// where the go command is told to stamp nothing.
var builtFrom = regexp.MustCompile(`\(commit [0-9a-f]{40}, go1`)

// TestInstall puts into DESTDIR what the packages hold, but for settings that
// are commented out, and uninstall takes all of it away.
func TestInstall(t *testing.T) {
	dest := t.TempDir()
	bin := filepath.Join(built, "linux-"+runtime.GOARCH)
	make := func(target string, more ...string) {
		t.Helper()
		output(t, "make", append([]string{"-C", "../..", target, "DESTDIR=" + dest, "BIN=" + bin}, more...)...)
	}
	make("install")
	var want []string
	for _, file := range slices.Concat(agentFiles, citadelFiles) {
		if !strings.Contains(file, "/etc/default/") && !strings.Contains(file, "/doc/") {
			want = append(want, file)
		}
	}
	slices.SortFunc(want, func(a, b string) int { return strings.Compare(a[11:], b[11:]) })
	if got := files(t, dest); !slices.Equal(got, want) {
		t.Errorf("installed: %q\nwanted: %q", got, want)
	}
	if said := output(t, filepath.Join(dest, "usr/local/bin/node_agent"), "version"); !builtFrom.MatchString(said) && exec.Command("git", "rev-parse", "HEAD").Run() == nil {
		t.Errorf("it does not say which commit it was built from: %s", said)
	}
	part := t.TempDir() // as go build -o part/ ./cmd/node_agent leaves it
	output(t, "cp", filepath.Join(bin, "node_agent"), part)
	output(t, "make", "-C", "../..", "install", "DESTDIR="+t.TempDir(), "BIN="+part)
	make("uninstall")
	if got := files(t, dest); len(got) != 0 {
		t.Errorf("left behind: %q", got)
	}
	make("install", "PREFIX=/opt/citadel")
	for unit, program := range map[string]string{"istio-auth-node-agent": "node_agent", "istio-auth-node-agent-redirect": "node_agent", "citadel": "citadel"} {
		text, err := os.ReadFile(filepath.Join(dest, "usr/lib/systemd/system", unit+".service"))
		if err != nil || !strings.Contains(string(text), "\nExecStart=/opt/citadel/bin/"+program+" ") || strings.Contains(string(text), "=/usr/local/bin/") {
			t.Errorf("%s, %v", text, err)
		}
	}
}

// files are those below a folder, with their modes.
func files(t *testing.T, dir string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			found = append(found, info.Mode().String()+" "+strings.TrimPrefix(path, dir))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
