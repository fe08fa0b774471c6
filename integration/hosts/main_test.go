// Package hosts proves Citadel outside a cluster: the packages and units of
// systemd/ on hosts that boot a systemd of their own, each in namespaces with a
// network of its own, and join, renew and recover while programs serve and call
// with what the agent keeps for them.
//
// It needs root, for the namespaces. It refuses fakes, and to look inside the
// programs: what a person could type is all that it asks them.
package hosts

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// What all tests share.
var (
	authority *host // where citadel.service runs
	programs  string
	rooms     string // of the hosts' folders
	keep      = flag.Bool("keep", false, "leave the hosts' files where they are")
)

func init() { runtime.LockOSThread() } // what TestMain starts dies with the main thread

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "hosts: NOTHING WAS TESTED: these tests boot systemd in namespaces of its own, which needs root and the packages of 'make deps'; as root: make test")
		return
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "hosts:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if rooms, err = os.MkdirTemp("", "citadel-hosts-"); err != nil {
		return 0, err
	}
	if *keep {
		fmt.Fprintln(os.Stderr, "hosts: their files are in", rooms)
	} else {
		defer os.RemoveAll(rooms)
	}
	if err := makePackages(); err != nil {
		return 0, err
	}
	if authority, err = newHost("authority"); err != nil {
		return 0, err
	}
	defer authority.Remove()
	if err := setUp(authority); err != nil {
		return 0, fmt.Errorf("%w\n%s", err, authority.Journal())
	}
	return m.Run(), nil
}

// makePackages makes them, and in a folder of their own those of an earlier
// version.
func makePackages() error {
	programs = filepath.Join(rooms, "programs")
	before := filepath.Join(programs, "before")
	if err := os.MkdirAll(before, 0o755); err != nil {
		return err
	}
	if err := runMake("PACKAGE_VERSION=0"); err != nil {
		return err
	}
	for _, kind := range []string{"*.deb", "*.rpm"} {
		made, err := filepath.Glob(filepath.Join(programs, kind))
		if err != nil || len(made) != 2 {
			return fmt.Errorf("packages of an earlier version: %q, %w", made, err)
		}
		for _, file := range made {
			if err := os.Rename(file, filepath.Join(before, filepath.Base(file))); err != nil {
				return err
			}
		}
	}
	return runMake()
}

func runMake(more ...string) error {
	build := exec.Command("make", append([]string{"-C", "../..", "packages", "BIN=" + programs, "ARCH=" + runtime.GOARCH}, more...)...)
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", build.Args, err, out)
	}
	return nil
}

// serverName is in the certificate of service account vm/web, for clients that
// want more than a SPIFFE ID.
const serverName = "web.example.org"

// setUp has the authority serve, from its package.
func setUp(h *host) error {
	if err := h.boot(); err != nil {
		return err
	}
	_, err := h.sh(`
		dpkg -i /run/test/programs/citadel_*.deb
		test "$(systemctl is-enabled citadel)" = disabled
		printf 'CITADEL_TRUST_DOMAIN=` + trustDomain + `\nCITADEL_CUSTOM_DNS_NAMES=web.vm:` + serverName + `\n' >>/etc/default/citadel
		systemctl enable --now citadel`)
	return err
}

const trustDomain = "hosts.example.org"
