package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// skewedNow replaces time.Now in a copy of the standard library: the wall clock
// is off by some seconds, which the linker sets, and the monotonic one is not.
const skewedNow = `
var skewText string

var skew = func() int64 {
	n, sign := int64(0), int64(1)
	for _, c := range skewText {
		if c == '-' {
			sign = -1
		} else {
			n = 10*n + int64(c-'0')
		}
	}
	return sign * n
}()

// Now is off.
func Now() Time {
	t := trueNow()
	if t.wall&hasMonotonic != 0 {
		t.wall += uint64(skew) << nsecShift
	} else {
		t.ext += skew
	}
	return t
}
`

// skewed builds citadel with a clock that is off.
func skewed(t *testing.T, by time.Duration) string {
	t.Helper()
	source := filepath.Join(strings.TrimSpace(string(must(exec.Command("go", "env", "GOROOT").Output())(t))), "src/time/time.go")
	text := string(must(os.ReadFile(source))(t))
	const now = "\nfunc Now() Time {\n"
	if strings.Count(text, now) != 1 {
		t.Fatalf("%s is not as this test knows it", source)
	}
	changed := writeFile(t, "time.go", []byte(strings.Replace(text, now, "\nfunc trueNow() Time {\n", 1)+skewedNow))
	overlay := writeFile(t, "overlay.json", must(json.Marshal(map[string]map[string]string{"Replace": {source: changed}}))(t))
	binary := filepath.Join(t.TempDir(), "citadel-skewed")
	build := exec.Command("go", "build", "-overlay", overlay, "-ldflags", "-X time.skewText="+strconv.Itoa(int(by.Seconds())), "-o", binary, "../cmd/citadel")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build a citadel whose clock is off: %v\n%s", err, out)
	}
	return binary
}

// TestWrongClock: a replica whose clock is 10 minutes off makes no root and no
// certificate, says why, and leaves the lease to one whose clock is right.
func TestWrongClock(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		by    time.Duration
		words string
	}{"ahead": {10 * time.Minute, "ahead of the API server's"}, "behind": {-10 * time.Minute, "behind the API server's"}} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			ns := s.namespace(t)
			wrong := s.launch(t, launch{binary: skewed(t, c.by)})
			if text := wrong.answers(t, "/readyz", 503); !strings.Contains(text, c.words) {
				within(t, patience, func() error {
					if text = wrong.answers(t, "/readyz", 503); !strings.Contains(text, c.words) {
						return fmt.Errorf("/readyz says %q", text)
					}
					return nil
				})
			}
			early := makeAccount(t, ns, "early")
			stays(t, 5*time.Second, func() error {
				_, err := plane.Client.CoreV1().Secrets(s.storage).Get(t.Context(), "istio-ca-secret", metav1.GetOptions{})
				if !apierrors.IsNotFound(err) {
					return fmt.Errorf("a root was made by a wrong clock, or: %w", err)
				}
				return nil
			})
			rightOne := s.start(t)
			right(t, early, s.roots(t))
			rightOne.stop(t)
			since := now(t)
			makeAccount(t, ns, "late")
			stays(t, 5*time.Second, func() error { return wroteNothing(t, since, wrong) })
			if ahead := time.Duration(wrong.metric(t, "citadel_clock_ahead_seconds")) * time.Second; (ahead - c.by).Abs() > 5*time.Second {
				t.Errorf("the metric says %s ahead, and it is %s", ahead, c.by)
			}
		})
	}
}

// TestFailOverBetweenTwoClocks: the one replica is ahead by almost what
// --max-clock-skew lets it, its successor behind by as much: what the first has
// written a moment ago is valid for the second, who rewrites none of it.
func TestFailOverBetweenTwoClocks(t *testing.T) {
	t.Parallel()
	const off = 55 * time.Second // 5s less than the limit: it is measured to a second
	s := newSite(t)
	ns := s.namespace(t)
	accounts := makeAccounts(t, ns, "sa", 30)
	leads := func(p *process) {
		t.Helper()
		within(t, patience, func() error {
			if p.metric(t, "citadel_leader") != 1 {
				return errors.New("it does not lead")
			}
			return nil
		})
	}
	written := now(t)
	ahead := s.launch(t, launch{binary: skewed(t, off)})
	ahead.ready(t)
	leads(ahead)
	behind := s.launch(t, launch{binary: skewed(t, -off)})
	behind.ready(t)
	roots := s.roots(t)
	allRight(t, accounts, roots)
	late := makeAccounts(t, ns, "late", 10)
	allRight(t, late, roots)
	done := len(writes(t, written, s.user, "secrets", ns, ""))
	ahead.stop(t)
	leads(behind)
	stays(t, 5*time.Second, func() error {
		if all := writes(t, written, s.user, "secrets", ns, ""); len(all) != done {
			return fmt.Errorf("%d Secrets were written again: %v", len(all)-done, all[done:])
		}
		return nil
	})
	if n := behind.metric(t, "citadel_secret_controller_secrets"); n < 40 {
		t.Errorf("it keeps %.0f Secrets", n)
	}
}
