package policy

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var writeFixes = flag.Bool("write-fixes", false, "write testdata/fixes.txt anew: read the difference")

const fixesFile = "testdata/fixes.txt"

// TestFixes: each conflict of the cases has one line that names what to change,
// and testdata/fixes.txt has them all, to be read by people.
func TestFixes(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var now strings.Builder
	for _, file := range files {
		for _, c := range readCases(t, file).Resolve {
			d := c.Snapshot().Resolve(c.Query)
			fix := d.Fix()
			if (fix == "") != (d.Verdict == OK || d.Symptom == DependsOnServer) {
				t.Errorf("%s: %s %s: fix %q", c.Name, d.Verdict, d.Symptom, fix)
			}
			if strings.ContainsAny(fix, "\n\r") || len(fix) > 400 {
				t.Errorf("%s: no line: %q", c.Name, fix)
			}
			if fix != "" {
				fmt.Fprintf(&now, "%s: %s by %s, %s by %s\n    %s\n", c.Name, d.Server, d.ServerBy, d.Client, d.ClientBy, fix)
			}
		}
	}
	if *writeFixes {
		if err := os.WriteFile(fixesFile, []byte(now.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(fixesFile)
	if err != nil {
		t.Fatal(err)
	}
	got, expected := bufio.NewScanner(strings.NewReader(now.String())), bufio.NewScanner(strings.NewReader(string(want)))
	for line := 1; ; line++ {
		a, b := got.Scan(), expected.Scan()
		if !a && !b {
			return
		}
		if got.Text() != expected.Text() {
			t.Fatalf("%s:%d: %s\nwant %s", fixesFile, line, got.Text(), expected.Text())
		}
	}
}

// The fixes that are an object by themselves, or a change of one.
var (
	addedRule   = regexp.MustCompile(`add a DestinationRule to namespace (\S+) for host (\S+), with tls mode (\w+)(?: for port (\d+))?`)
	addedPolicy = regexp.MustCompile(`add a Policy to namespace (\S+) with target ([^ ,]+)(?:, port (\d+))?, and mtls mode PERMISSIVE`)
	addedPeer   = regexp.MustCompile(`add a PeerAuthentication to namespace (\S+) that selects the workloads of Service/[^/]+/([^,]+), with portLevelMtls (.*)$`)
	setPeer     = regexp.MustCompile(`set portLevelMtls (\d+): {mode: PERMISSIVE} in PeerAuthentication/([^/]+)/(\S+)$`)
	annotated   = regexp.MustCompile(`annotate Service/([^/]+)/(\S+) with (\S+): NONE`)
	listed      = regexp.MustCompile(`^add (\S+) to mtlsExcludedServices`)
	unlisted    = regexp.MustCompile(`^take (\S+) off mtlsExcludedServices`)
)

// TestFixesMend: done as they are told, client and server can talk.
func TestFixesMend(t *testing.T) {
	tried := 0
	for _, file := range []string{"testdata/cases.yaml", "testdata/own.yaml"} {
		for _, c := range readCases(t, file).Resolve {
			s := c.Snapshot()
			for alternative := range strings.SplitSeq(s.Resolve(c.Query).Fix(), "; or ") {
				o := objectOf(t, s, alternative)
				if o == nil {
					continue
				}
				tried++
				if d := s.With(o).Resolve(c.Query); d.Verdict != OK {
					t.Errorf("%s: %s: then %s by %s, %s by %s", c.Name, alternative, d.Server, d.ServerBy, d.Client, d.ClientBy)
				}
			}
		}
	}
	if tried < 60 {
		t.Errorf("%d fixes were tried", tried)
	}
}

// objectOf does what a fix says; nil for one that names no single object.
func objectOf(t *testing.T, s *Snapshot, fix string) Object {
	t.Helper()
	find := func(pattern *regexp.Regexp) []string { return pattern.FindStringSubmatch(fix) }
	read := func(format string, args ...any) Object {
		objects, err := Decode("fix", fmt.Appendf(nil, format, args...))
		if err != nil || len(objects) != 1 {
			t.Fatalf("%s: %v", fix, err)
		}
		return objects[0]
	}
	config := MeshConfig{}
	if s.config != nil {
		config = *s.config
	}
	if m := find(addedRule); m != nil {
		traffic := fmt.Sprintf("tls: {mode: %s}", m[3])
		if m[4] != "" {
			traffic = fmt.Sprintf("portLevelSettings: [{port: {number: %s}, tls: {mode: %s}}]", m[4], m[3])
		}
		return read("{apiVersion: networking.istio.io/v1alpha3, kind: DestinationRule, metadata: {name: fix, namespace: %s}, spec: {host: %q, trafficPolicy: {%s}}}", m[1], m[2], traffic)
	}
	if m := find(addedPolicy); m != nil {
		ports := ""
		if m[3] != "" {
			ports = fmt.Sprintf(", ports: [{number: %s}]", m[3])
		}
		return read("{apiVersion: authentication.istio.io/v1alpha1, kind: Policy, metadata: {name: fix, namespace: %s}, spec: {targets: [{name: %s%s}], peers: [{mtls: {mode: PERMISSIVE}}]}}", m[1], m[2], ports)
	}
	if m := find(addedPeer); m != nil {
		selector := s.namespaces[m[1]].service(m[2]).selector
		return read("{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: fix, namespace: %s}, spec: {selector: {matchLabels: {%s: %s}}, portLevelMtls: {%s}}}", m[1], selector[0].key, selector[0].value, m[3])
	}
	if m := find(setPeer); m != nil {
		for _, p := range s.namespaces[m[2]].peers {
			if peer := *p.PeerAuthentication; peer.Name == m[3] {
				port, _ := strconv.Atoi(m[1])
				peer.Spec.PortLevelMTLS = map[uint32]PeerMTLS{uint32(port): {Mode: Permissive}}
				return &peer
			}
		}
	}
	if m := find(listed); m != nil {
		config.ExcludedServices = append(config.ExcludedServices[:len(config.ExcludedServices):len(config.ExcludedServices)], m[1])
		return &config
	}
	if m := find(unlisted); m != nil {
		config.ExcludedServices = nil
		return &config
	}
	if m := find(annotated); m != nil {
		svc := *s.namespaces[m[1]].service(m[2]).object.(*Service)
		svc.Annotations = map[string]string{m[3]: "NONE"}
		return &svc
	}
	return nil
}
