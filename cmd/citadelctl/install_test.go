package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/spf13/pflag"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestAdopt: a person's own word counts before the Deployment's arguments, and
// these before its environment.
func TestAdopt(t *testing.T) {
	for name, c := range map[string]struct {
		given, args []string
		env         []corev1.EnvVar
		want        string
		fails       bool
	}{
		"nothing":           {want: "[] true 0.5 false"},
		"arguments":         {args: []string{"--log-format=json", "--listened-namespaces", "a, b", "--enable-namespaces-by-default=false", "--workload-cert-grace-period-ratio=0.3"}, want: "[a b] false 0.3 false"},
		"empty list":        {args: []string{"--listened-namespaces="}, want: "[] true 0.5 false"},
		"bare boolean":      {args: []string{"--enable-namespaces-by-default", "--unknown", "x"}, want: "[] true 0.5 false"},
		"environment":       {env: []corev1.EnvVar{{Name: "CITADEL_LISTENED_NAMESPACES", Value: "web"}, {Name: "NAMESPACE", Value: "other"}}, want: "[web] true 0.5 false"},
		"NAMESPACE":         {env: []corev1.EnvVar{{Name: "NAMESPACE", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.namespace"}}}}, want: "[mesh] true 0.5 false"},
		"both":              {args: []string{"--workload-cert-grace-period-ratio=0.3"}, env: []corev1.EnvVar{{Name: "CITADEL_WORKLOAD_CERT_GRACE_PERIOD_RATIO", Value: "0.2"}}, want: "[] true 0.3 false"},
		"given":             {given: []string{"--workload-cert-grace-period-ratio=0.1"}, args: []string{"--workload-cert-grace-period-ratio=0.3"}, want: "[] true 0.1 false"},
		"files":             {args: []string{"--signing-cert", "/etc/ca.pem"}, want: "[] true 0.5 true"},
		"files by variable": {env: []corev1.EnvVar{{Name: "CITADEL_SIGNING_CERT", Value: "/etc/ca.pem"}}, want: "[] true 0.5 true"},
		"nonsense":          {args: []string{"--workload-cert-grace-period-ratio=much"}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			f, flags := &installFlags{}, pflag.NewFlagSet("", pflag.ContinueOnError)
			f.addTo(flags)
			if err := flags.Parse(c.given); err != nil {
				t.Fatal(err)
			}
			d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "mesh"}}
			d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "proxy", Args: []string{"--listened-namespaces=wrong"}}, {Name: "citadel", Args: c.args, Env: c.env}}
			files, err := adopt(flags, d)
			if (err != nil) != c.fails {
				t.Fatal(err)
			}
			if got := fmt.Sprint(f.listed, f.byDefault, f.rotation.GraceRatio, files); got != c.want && !c.fails {
				t.Errorf("adopted %s, want %s", got, c.want)
			}
		})
	}
}

// TestServerClock: a clock that is far off is followed, one that is about right
// is not meddled with.
func TestServerClock(t *testing.T) {
	for ahead, want := range map[time.Duration]time.Duration{0: 0, time.Second: 0, 10 * time.Minute: 10 * time.Minute, -time.Hour: -time.Hour} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
		}))
		clock := &serverClock{}
		client := &http.Client{Transport: clock.listen(http.DefaultTransport)}
		resp, err := client.Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		server.Close()
		if off := (clock.skew() - want).Abs(); off > 3*time.Second {
			t.Errorf("%s ahead: skew %s", ahead, clock.skew())
		}
		if off := (time.Until(clock.now()) - want).Abs(); off > 4*time.Second {
			t.Errorf("%s ahead: now is off by %s", ahead, off)
		}
	}
}
