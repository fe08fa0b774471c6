package policy

import (
	"net/netip"
	"testing"
)

// TestEndedPodGivesItsAddressUp: another Pod may have it by now.
func TestEndedPodGivesItsAddressUp(t *testing.T) {
	addr := netip.MustParseAddr("10.0.0.1")
	pod := func(name string, phase PodPhase) *Pod {
		return &Pod{Meta: Meta{Namespace: "a", Name: name}, Status: PodStatus{Phase: phase, IP: addr.String()}}
	}
	s := New(V1, pod("job", "Running"))
	if got := s.Workloads("a", addr); len(got) != 1 || got[0].Ref.Name != "job" {
		t.Errorf("a Pod that runs: %v", got)
	}
	for _, phase := range []PodPhase{"Succeeded", "Failed"} {
		if got := s.With(pod("job", phase), pod("web", "Running")).Workloads("a", addr); len(got) != 1 || got[0].Ref.Name != "web" {
			t.Errorf("after %s: %v", phase, got)
		}
	}
	if got := s.With(pod("job", "Failed")).Namespaces(); len(got) != 0 {
		t.Errorf("nothing is left but %v", got)
	}
}
