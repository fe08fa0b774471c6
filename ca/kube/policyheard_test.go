package kube

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"citadel/ca/policy"
	"citadel/ca/policyfeed"
)

// TestKindIsNotHeardOf: when failing requests become a problem, and when they are
// one no more.
func TestKindIsNotHeardOf(t *testing.T) {
	start, forbidden := time.Unix(1000, 0), errors.New("forbidden")
	k := newKind("Pod", nil)
	at := func(after time.Duration, want string) {
		t.Helper()
		if got, is := k.unread(start.Add(after)); is != (want != "") || !strings.Contains(got.String(), want) {
			t.Errorf("after %s: %q, want %q", after, got, want)
		}
	}
	at(0, "")
	k.heard(start, forbidden, false)
	at(0, "Pod is not read: forbidden")
	k.synced = true
	at(patience-1, "")
	k.heard(start.Add(20*time.Second), forbidden, true)
	k.heard(start.Add(25*time.Second), nil, false)
	at(patience, "Pod is not heard of, and what is known of it may be old: forbidden")
	k.heard(start.Add(40*time.Second), nil, true)
	at(time.Hour, "")
	k.heard(start.Add(time.Hour), forbidden, true)
	at(time.Hour+patience-1, "")
	at(time.Hour+patience, "forbidden")
	k.ended = true
	at(time.Hour+patience, "")
}

// TestForbiddenKindsAreNamed: who begins without rights says which.
func TestForbiddenKindsAreNamed(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"no right to ` + r.URL.Path + `"}`))
	}))
	defer server.Close()
	cfg := &rest.Config{Host: server.URL}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	custom, err := CustomClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	feed, ended := policyfeed.New(policy.Auto), make(chan struct{})
	go func() {
		defer close(ended)
		Policy{Client: client, Custom: custom, Namespace: "istio-system", Feed: feed, Tell: func(error) {}}.Run(ctx)
	}()
	defer func() { cancel(); <-ended }()
	for state := feed.State(); len(state.Unread) < 5; state = feed.State() {
		select {
		case <-state.Changed:
		case <-ctx.Done():
			t.Fatalf("unread: %v", state.Unread)
		}
	}
	state := feed.State()
	if all := strings.Join(state.Problems(), "\n"); state.Snapshot != nil || !strings.Contains(all, "Pod is not read: no right to /api/v1/pods") ||
		!strings.Contains(all, "ConfigMap istio is not read: no right to /api/v1/namespaces/istio-system/configmaps") {
		t.Errorf("%v: %s", state.Snapshot, all)
	}
}
