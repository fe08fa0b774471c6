package daemon

import "testing"

func TestVersionIsOneLine(t *testing.T) {
	for want, v := range map[string]Version{
		"v1 (commit abc, go1.26)":     {"v1", "abc", "go1.26"},
		"v1 (commit unknown, go1.26)": {"v1", "", "go1.26"},
	} {
		if got := v.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
